import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { IommufdObject } from '../../src/iommufd/index.ts';
import { commandArbitrary, NOTHING_LEFT, World } from './world.ts';

/** Counts and links of every object, in one string: what a failed call must leave alone. */
function state(world: World): string {
  const { ctx } = world.lab;
  const objects = ctx.objects.list().map(({ label, users, waitCnt }: IommufdObject) => `${label} ${users}/${waitCnt}`);
  const groups = [...ctx.igroups.values()].map(({ attachments }) =>
    [...attachments].map(([pasid, { hwpt, devices }]) => `${pasid}:${hwpt.id}:${[...devices.keys()]}`).join(),
  );
  return JSON.stringify([objects, groups, ctx.pins.pinned, ctx.files.size, ctx.mmaps.size, world.lab.driver.live.size]);
}

/** Failures that are allowed to have done something: areas below the offending one. */
const MAY_CHANGE = new Set(['unmap']);

test('after every command: users = 1 + holders; waits are at rest; a failed call changed nothing; close leaves nothing', () => {
  fc.assert(
    fc.property(fc.array(commandArbitrary, { minLength: 5, maxLength: 60 }), (commands) => {
      const world = new World();
      for (const command of commands) {
        const before = state(world);
        const result = world.run(command);
        if (result !== 'ok' && !MAY_CHANGE.has(command.kind))
          expect(state(world), `${command.kind} ${result}`).toBe(before);
        const expected = world.expectedUsers();
        for (const object of world.lab.ctx.objects.list()) {
          // The mock's queues and mmaps hold more than the table below knows; they are bounded by it.
          const exact = object.kind !== 'HW_QUEUE' && object.kind !== 'VIOMMU';
          if (exact) expect(object.users, object.label).toBe(expected.get(object.id));
          else expect(object.users, object.label).toBeGreaterThanOrEqual(expected.get(object.id) ?? 0);
          const revocable = object.kind === 'DEVICE' && (object as unknown as { vdev: object | null }).vdev !== null;
          expect(object.waitCnt, object.label).toBe(revocable ? 2 : 1);
        }
      }
      expect(world.tearDown()).toEqual(NOTHING_LEFT);
    }),
    { numRuns: 150 },
  );
});

test('DESTROY succeeds if and only if the object is live and nobody holds it', () => {
  fc.assert(
    fc.property(
      fc.array(commandArbitrary, { minLength: 5, maxLength: 40 }),
      fc.integer({ min: 0, max: 40 }),
      (commands, id) => {
        const world = new World();
        for (const command of commands) world.run(command);
        const object = world.lab.ctx.objects.peek(id);
        const wanted = object === undefined ? 'ENOENT' : object.users > 1 ? 'EBUSY' : 'ok';
        expect(world.run({ kind: 'destroy', n: [id - 1, 0, 0] })).toBe(wanted);
        if (object?.kind === 'DEVICE' || object?.kind === 'ACCESS') expect(wanted).toBe('EBUSY');
        expect(world.tearDown()).toEqual(NOTHING_LEFT);
      },
    ),
    { numRuns: 100 },
  );
});

test('ids are the lowest free ones, tombstones aside', () => {
  fc.assert(
    fc.property(fc.array(commandArbitrary, { maxLength: 40 }), (commands) => {
      const world = new World();
      for (const command of commands) world.run(command);
      const { ctx } = world.lab;
      const taken = new Set(ctx.objects.list().map(({ id }) => id));
      const next = ctx.ioasAlloc().out_ioas_id;
      let lowest = 1;
      while (taken.has(lowest)) lowest++;
      const closed = commands.some(({ kind }) => kind === 'close-device');
      if (closed) expect(next).toBeGreaterThanOrEqual(lowest);
      else expect(next).toBe(lowest);
    }),
  );
});
