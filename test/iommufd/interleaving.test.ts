import fc from 'fast-check';
import { expect, test } from 'vitest';
import { isDeadlock, type Nested, NotSchedulable, schedulable } from './nested-calls.ts';
import { type Command, commandArbitrary, NOTHING_LEFT, World } from './world.ts';

const leaf = commandArbitrary.map((command): Nested<Command> => ({ command, at: 0, inner: null }));
const wrap = (inner: fc.Arbitrary<Nested<Command>>): fc.Arbitrary<Nested<Command>> =>
  fc.record({ command: commandArbitrary, at: fc.nat(12), inner });

test('a whole call at any hook of another, to depth 2: no leak, no use after free, no hang', () => {
  let scheduled = 0;
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
          const done = schedulable({ kernel: world.lab.kernel, run: (one) => world.run(one) }, step);
          if (done) scheduled++;
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
  console.info(`interleavings on the mock driver: ${given}, ${given - scheduled} not schedulable`);
  expect(scheduled).toBeGreaterThan(300);
  expect(scheduled).toBeLessThanOrEqual(given);
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
        let finished = true;
        try {
          world.run(command);
        } catch (error) {
          if (!isDeadlock(error)) throw error;
          finished = false;
        }
        stop();
        fc.pre(finished);
        expect(world.tearDown()).toEqual(NOTHING_LEFT);
      },
    ),
    { numRuns: 200, maxSkipsPerRun: 20 },
  );
});
