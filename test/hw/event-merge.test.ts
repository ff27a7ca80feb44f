/** Merging of event records (IHI 0070 3.5.5, 7.3.1, STE.MEV). */
import { describe, expect, test } from 'vitest';
import * as spec from '../../spec/registers.ts';
import { createMachine, linuxNesting, Outcome, type SmmuConfig, Transaction } from '../../src/hw/index.ts';
import { NoTranslation } from '../../src/hw/translation-unit.ts';
import { BASE, EVENTQ, Regs } from './harness.ts';

class Scripted extends NoTranslation {
  override translate(t: Transaction): void {
    const { event, MEV, outcome } = t;
    t.reset();
    Object.assign(t, { event, MEV, outcome, record: true });
  }
}

const MERGING: SmmuConfig = { ...linuxNesting, options: { eventMerging: 'unread' } };

function setup(config = MERGING) {
  const machine = createMachine(
    { smmus: [{ config, base: BASE }], ram: [{ base: 0x4000_0000n, size: 0x100_0000n }] },
    () => new Scripted(),
  );
  const r = new Regs(machine);
  r.start();
  const client = { retry: () => {}, finish: () => {} };
  const fault = (fields: Partial<Transaction>): number => {
    const t = Object.assign(new Transaction(), { StreamID: 8, event: 0x10, MEV: true, outcome: Outcome.Abort }, fields);
    machine.smmus[0]?.access(t, fields.outcome === Outcome.Stall ? client : null);
    return r.read(spec.EVENTQ_PROD) >>> 0;
  };
  return { machine, r, fault };
}

describe('events of streams with MEV = 1 [7.3.1]', () => {
  test('the same fault twice is one record, while the first is unread', () => {
    const { r, fault } = setup();
    expect([fault({}), fault({}), fault({})]).toEqual([1, 1, 1]);
    r.write(spec.EVENTQ_CONS, 1);
    expect([fault({}), fault({})]).toEqual([2, 2]);
  });

  test('by default nothing is merged', () => {
    const { fault } = setup(linuxNesting);
    expect([fault({}), fault({})]).toEqual([1, 2]);
  });

  test('InputAddr within a 4 KB page does not count, the page and every other field do', () => {
    const { fault } = setup();
    expect(fault({ addrLo: 0x12345678 })).toBe(1);
    expect(fault({ addrLo: 0x12345abc })).toBe(1);
    expect(fault({ addrLo: 0x12346678 })).toBe(2);
    expect(fault({ addrLo: 0x12346678, addrHi: 1 })).toBe(3);
    expect(fault({ addrLo: 0x12346678, addrHi: 1, isWrite: true })).toBe(4);
    expect(fault({ addrLo: 0x12346678, addrHi: 1, isWrite: true, StreamID: 9 })).toBe(5);
    expect(fault({ addrLo: 0x12346678, addrHi: 1, isWrite: true, StreamID: 9, event: 0x12 })).toBe(6);
  });

  test('a record merges into the newest one only', () => {
    const { fault } = setup();
    expect([fault({}), fault({ StreamID: 9 }), fault({})]).toEqual([1, 2, 3]);
  });

  test('a full queue whose newest record says the same does not overflow', () => {
    const { fault } = setup();
    for (let i = 0; i < 16; i++) fault({ StreamID: i });
    expect(fault({ StreamID: 15 })).toBe(16);
    expect(fault({ StreamID: 16 })).toBe(0x80000000 + 16);
  });

  test('with EVENTQEN = 0 a record is gone', () => {
    const { r, fault } = setup();
    fault({});
    r.write(spec.CR0, 0);
    r.write(spec.EVENTQ_CONS, 0);
    r.write(spec.EVENTQ_PROD, 0);
    expect(fault({})).toBe(0);
    r.write(spec.CR0, spec.CR0.bit('EVENTQEN'));
    expect(fault({})).toBe(1);
  });

  test('a record of a stall is never merged, nor merged into', () => {
    const { fault } = setup();
    expect([fault({ outcome: Outcome.Stall }), fault({ outcome: Outcome.Stall }), fault({})]).toEqual([1, 2, 3]);
    expect(fault({ outcome: Outcome.Stall })).toBe(4);
  });
});

describe('events of streams with MEV = 0 [7.3.1]', () => {
  test('are not merged', () => {
    const { fault } = setup();
    expect([fault({ MEV: false }), fault({ MEV: false })]).toEqual([1, 2]);
  });

  test.each([0x01, 0x02, 0x03, 0x04])('but F_UUT, C_BAD_STREAMID, F_STE_FETCH and C_BAD_STE may be: 0x%s', (event) => {
    const { fault } = setup();
    expect([fault({ MEV: false, event }), fault({ MEV: false, event })]).toEqual([1, 1]);
  });
});

test('records that wait to be written are merged as well [3.12]', () => {
  const script = new Scripted();
  const machine = createMachine(
    {
      smmus: [{ config: MERGING, base: BASE }],
      ram: [{ base: 0x4000_0000n, size: 0x100_0000n }],
      schedule: { mode: 'stepped' },
    },
    () => script,
  );
  const r = new Regs(machine);
  r.start();
  while (machine.step());
  for (const StreamID of [8, 8, 8, 9])
    machine.smmus[0]?.access(Object.assign(new Transaction(), { StreamID, event: 0x10, MEV: true }));
  expect(r.read(spec.EVENTQ_PROD)).toBe(0);
  while (machine.step());
  expect(r.read(spec.EVENTQ_PROD)).toBe(2);
  expect(machine.memory.read64(EVENTQ + 32n) >> 32n).toBe(9n);
});

test('`drawn`: the schedule decides, so that eager machines merge nothing and seeded ones sometimes', () => {
  const records = (mode: 'eager' | 'seeded', seed: number): number => {
    const machine = createMachine(
      {
        smmus: [{ config: { ...linuxNesting, options: { eventMerging: 'drawn' } }, base: BASE }],
        ram: [{ base: 0x4000_0000n, size: 0x100_0000n }],
        schedule: { mode, seed },
      },
      () => new Scripted(),
    );
    const r = new Regs(machine);
    r.start();
    while (machine.step());
    for (let i = 0; i < 8; i++) {
      machine.smmus[0]?.access(Object.assign(new Transaction(), { StreamID: 8, event: 0x10, MEV: true }));
      machine.conductor.schedule.operation(`after ${i}`);
    }
    while (machine.step());
    return r.read(spec.EVENTQ_PROD);
  };
  expect(records('eager', 0)).toBe(8);
  const counts = new Set(Array.from({ length: 20 }, (_, seed) => records('seeded', seed)));
  expect(counts.size).toBeGreaterThan(1);
});
