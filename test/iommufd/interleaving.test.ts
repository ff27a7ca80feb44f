import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Command, commandArbitrary, NOTHING_LEFT, World } from './world.ts';

/** The inner call would wait for the outer one: such a run proves nothing. */
class NotSchedulable extends Error {}

/** An inner call met a lock of the outer one. */
let stuck = false;
const isDeadlock = (error: unknown): boolean =>
  error instanceof NotSchedulable || (error instanceof Error && error.message.startsWith('deadlock'));

/** A whole call at the nth hook of another, and perhaps one more inside it. */
interface Nested {
  readonly command: Command;
  readonly at: number;
  readonly inner: Nested | null;
}

/** Runs a call; at its `at`th hook (lock, unlock, allocation, copy, poll) the inner one runs from start to end. */
function runNested(world: World, { command, inner, at }: Nested): void {
  if (inner === null) {
    world.run(command);
    return;
  }
  let hooks = at;
  const stop = world.lab.kernel.onPoint(() => {
    if (hooks-- > 0) return;
    stop();
    try {
      runNested(world, inner);
    } catch (error) {
      // The code around the hook may take what is thrown for a failure of its own.
      stuck ||= isDeadlock(error);
      throw error;
    }
  });
  try {
    world.run(command);
  } finally {
    stop();
  }
}

function attempt(world: World, nested: Nested): boolean {
  // A wait for the last put of an object that an outer call holds would never end.
  const stop = world.lab.kernel.onPoint((point) => {
    if (point === 'poll:iommufd:wait-cnt') throw new NotSchedulable(point);
  });
  stuck = false;
  try {
    runNested(world, nested);
    return !stuck;
  } catch (error) {
    if (stuck || isDeadlock(error)) return false;
    throw error;
  } finally {
    stop();
  }
}

const leaf = commandArbitrary.map((command): Nested => ({ command, at: 0, inner: null }));
const wrap = (inner: fc.Arbitrary<Nested>): fc.Arbitrary<Nested> =>
  fc.record({ command: commandArbitrary, at: fc.nat(12), inner });

test('a whole call at any hook of another, to depth 2: no leak, no use after free, no hang', () => {
  let schedulable = 0;
  let given = 0;
  fc.assert(
    fc.property(
      fc.array(commandArbitrary, { minLength: 10, maxLength: 40 }),
      fc.array(fc.oneof(wrap(leaf), wrap(wrap(leaf))), { minLength: 1, maxLength: 6 }),
      (setUp, steps) => {
        const world = new World();
        world.run({ kind: 'bind', n: [0, 0, 0] });
        world.run({ kind: 'bind', n: [1, 0, 0] });
        world.run({ kind: 'ioas', n: [0, 0, 0] });
        world.run({ kind: 'map', n: [0, 1, 1] });
        world.run({ kind: 'hwpt', n: [0, 0, 1] });
        world.run({ kind: 'viommu', n: [0, 0, 0] });
        for (const command of setUp) world.run(command);
        for (const step of steps) {
          given++;
          const done = attempt(world, step);
          if (done) schedulable++;
          fc.pre(done);
        }
        const expected = world.expectedUsers();
        for (const object of world.lab.ctx.objects.list())
          if (object.kind !== 'HW_QUEUE' && object.kind !== 'VIOMMU')
            expect(object.users, object.label).toBe(expected.get(object.id));
        expect(world.tearDown()).toEqual(NOTHING_LEFT);
      },
    ),
    { numRuns: 300, maxSkipsPerRun: 20 },
  );
  console.info(`interleavings on the mock driver: ${given}, ${given - schedulable} not schedulable`);
  expect(schedulable).toBeGreaterThan(300);
  expect(schedulable).toBeLessThanOrEqual(given);
});

test('close at any hook of any call waits for the call, then releases everything', () => {
  fc.assert(
    fc.property(
      fc.array(commandArbitrary, { minLength: 10, maxLength: 40 }),
      commandArbitrary,
      fc.nat(10),
      (setUp, command, at) => {
        const world = new World();
        world.run({ kind: 'bind', n: [0, 0, 0] });
        world.run({ kind: 'ioas', n: [0, 0, 0] });
        for (const each of setUp) world.run(each);
        let hooks = at;
        const stop = world.lab.kernel.onPoint((point) => {
          if (point === 'poll:iommufd:wait-cnt') throw new NotSchedulable(point);
          if (hooks-- > 0) return;
          stop();
          world.lab.ctx.close();
        });
        let schedulable = true;
        try {
          world.run(command);
        } catch (error) {
          if (!(error instanceof NotSchedulable) && !(error instanceof Error && error.message.startsWith('deadlock')))
            throw error;
          schedulable = false;
        }
        stop();
        fc.pre(schedulable);
        expect(world.tearDown()).toEqual(NOTHING_LEFT);
      },
    ),
    { numRuns: 200, maxSkipsPerRun: 20 },
  );
});
