import { describe, expect, test } from 'vitest';
import { toQwords } from '../../spec/layout.ts';
import * as spec from '../../spec/registers.ts';
import { fillEvent } from '../../src/hw/event-record.ts';
import { createMachine, FaultClass, linuxNesting, Outcome, type SmmuConfig, Transaction } from '../../src/hw/index.ts';
import type { Termination } from '../../src/hw/stall.ts';
import { NoTranslation } from '../../src/hw/translation-unit.ts';
import { BASE, EVENTQ, Regs } from './harness.ts';

function transaction(fields: Partial<Transaction>): Transaction {
  return Object.assign(new Transaction(), { StreamID: 0x108, record: true }, fields);
}

function record(fields: Partial<Transaction>, STAG = -1): bigint[] {
  const words = new Uint32Array(8);
  fillEvent(words, transaction(fields), STAG < 0 ? null : { STAG });
  return toQwords(words);
}

const IOVA = { addrHi: 0x4000, addrLo: 0x12345000 };

describe('records, bit for bit [7.3; the encoded examples of the reference]', () => {
  test('C_BAD_STE', () => expect(record({ event: 0x04 })).toEqual([0x0000010800000004n, 0n, 0n, 0n]));

  test('F_TRANSLATION at stage 1, stalled, with a SubstreamID', () =>
    expect(record({ event: 0x10, SSV: true, SubstreamID: 5, CLASS: FaultClass.IN, ...IOVA }, 7)).toEqual([
      0x0000010800005810n,
      0x0000020880000007n,
      0x0000400012345000n,
      0n,
    ]));

  test('F_TRANSLATION at stage 2 of a stage 1 table fetch, write', () =>
    expect(record({ event: 0x10, isWrite: true, S2: true, CLASS: FaultClass.TT, ipaLo: 0x87654000, ...IOVA })).toEqual([
      0x0000010800000010n,
      0x0000018000000000n,
      0x0000400012345000n,
      0x0000000087654000n,
    ]));

  test('F_PERMISSION at stage 2, privileged write', () =>
    expect(record({ event: 0x13, isWrite: true, S2: true, eventPnU: true, ipaLo: 0x87654000 | 0, ...IOVA })).toEqual([
      0x0000010800000013n,
      0x0000028200000000n,
      0x0000400012345000n,
      0x0000000087654000n,
    ]));

  test('F_WALK_EABT of a stage 1 table', () =>
    expect(record({ event: 0x0b, CLASS: FaultClass.TT, fetchLo: 0x87654008, ...IOVA })).toEqual([
      0x000001080000000bn,
      0x0000010800000000n,
      0x0000400012345000n,
      0x0000000087654008n,
    ]));

  test('F_STE_FETCH', () =>
    expect(record({ event: 0x03, fetchLo: 0x90000040 })).toEqual([0x0000010800000003n, 0n, 0n, 0x90000040n]));

  test('high address halves, and the low bits that a record does not have', () => {
    expect(record({ event: 0x12, S2: true, ipaHi: 0xffff, ipaLo: 0x12345678 })[3]).toBe(0x0000ffff12345000n);
    expect(record({ event: 0x09, fetchHi: 0xff, fetchLo: 0x1234567f })[3]).toBe(0x000000ff12345678n);
    expect(record({ event: 0x05, addrHi: 0x12, addrLo: 0x34567890, noWrite: true, PnU: true })).toEqual([
      0x0000010800000005n,
      0x0000000090000001n,
      0x0000001234567000n,
      0n,
    ]);
  });

  test('C_BAD_SUBSTREAMID has no SSV; F_STREAM_DISABLED and F_TRANSL_FORBIDDEN have no SubstreamID', () => {
    expect(record({ event: 0x08, SSV: true, SubstreamID: 5 })[0]).toBe(0x0000010800005008n);
    expect(record({ event: 0x06, SSV: true, SubstreamID: 5 })[0]).toBe(0x0000010800000006n);
    expect(record({ event: 0x07, SSV: true, SubstreamID: 5, ...IOVA })).toEqual([
      0x0000010800000007n,
      0x0000000800000000n,
      0x0000400012345000n,
      0n,
    ]);
  });
});

/** Each transaction ends as the test says. */
class Scripted extends NoTranslation {
  next: Partial<Transaction> = {};
  override translate(t: Transaction): void {
    t.reset();
    Object.assign(t, { event: 0x04, record: true }, this.next);
  }
}

class Client {
  readonly ends: (Termination | 'retry')[] = [];
  again: () => void = () => {};
  retry(): void {
    this.ends.push('retry');
    this.again();
  }
  finish(how: Termination): void {
    this.ends.push(how);
  }
}

function scripted(config: SmmuConfig = linuxNesting) {
  const script = new Scripted();
  const machine = createMachine(
    { smmus: [{ config, base: BASE }], ram: [{ base: 0x4000_0000n, size: 0x100_0000n }] },
    () => script,
  );
  const r = new Regs(machine);
  r.start();
  const fault = (client: Client | null = null, StreamID = 0x108): Outcome => {
    const t = transaction({ StreamID });
    machine.smmus[0]?.access(t, client);
    return t.outcome;
  };
  const read = (index: number): bigint[] =>
    [0n, 8n, 16n, 24n].map((at) => machine.memory.read64(EVENTQ + BigInt(index * 32) + at));
  return { machine, r, script, fault, read };
}

const OVFLG = 0x80000000;

describe('the Event queue [7.2, 7.4]', () => {
  test('records land at PROD, which then moves; one interrupt when the queue stops being empty', () => {
    const { r, fault, read, machine } = scripted();
    let edges = 0;
    machine.bus.onInterrupt(74, () => edges++);
    r.write(spec.IRQ_CTRL, spec.IRQ_CTRL.bit('EVENTQ_IRQEN'));
    fault();
    fault();
    expect(read(1)).toEqual([0x0000010800000004n, 0n, 0n, 0n]);
    expect([r.read(spec.EVENTQ_PROD), edges]).toEqual([2, 1]);
    r.write(spec.EVENTQ_CONS, 2);
    fault();
    expect([r.read(spec.EVENTQ_PROD), edges]).toEqual([3, 2]);
  });

  test('full: the record is dropped and OVFLG toggles once; with room, records come again before the acknowledge', () => {
    const { r, fault } = scripted();
    for (let i = 0; i < 16; i++) fault();
    expect(r.read(spec.EVENTQ_PROD)).toBe(16);
    fault();
    fault();
    expect(r.read(spec.EVENTQ_PROD) >>> 0).toBe(OVFLG + 16);
    r.write(spec.EVENTQ_CONS, 1);
    fault();
    expect(r.read(spec.EVENTQ_PROD) >>> 0).toBe(OVFLG + 17);
    fault();
    expect(r.read(spec.EVENTQ_PROD) >>> 0).toBe(OVFLG + 17);
    r.write(spec.EVENTQ_CONS, OVFLG + 1);
    fault();
    expect(r.read(spec.EVENTQ_PROD)).toBe(17);
  });

  test('EVENTQEN 0: records are dropped without overflow', () => {
    const { r, fault } = scripted();
    r.write(spec.CR0, 0);
    for (let i = 0; i < 20; i++) fault();
    expect(r.read(spec.EVENTQ_PROD)).toBe(0);
  });

  test('an aborted write: EVENTQ_ABT_ERR, PROD stays, no interrupt, nothing more until acknowledged [7.2.2]', () => {
    const { r, fault, machine } = scripted();
    let edges = 0;
    machine.bus.onInterrupt(74, () => edges++);
    r.write(spec.CR0, 0);
    r.write64(spec.EVENTQ_BASE, 0x1000_0004n);
    r.write(spec.IRQ_CTRL, spec.IRQ_CTRL.bit('EVENTQ_IRQEN'));
    r.write(spec.CR0, spec.CR0.bit('EVENTQEN'));
    fault();
    fault();
    expect([r.errors, r.read(spec.EVENTQ_PROD), edges]).toEqual([spec.GERROR.bit('EVENTQ_ABT_ERR'), 0, 0]);
    r.acknowledge();
    expect(r.errors).toBe(0);
    fault();
    expect([r.errors, r.read(spec.GERROR)]).toEqual([4, 0]);
  });

  test('inconsistent indices count as full [3.5.1]', () => {
    const { r, fault } = scripted();
    r.write(spec.EVENTQ_CONS, 3);
    fault();
    expect(r.read(spec.EVENTQ_PROD) >>> 0).toBe(OVFLG);
  });

  test('a Non-recorded fault leaves no trace', () => {
    const { r, fault, script } = scripted();
    script.next = { event: 0x10, record: false };
    expect(fault()).toBe(Outcome.Abort);
    expect(r.read(spec.EVENTQ_PROD)).toBe(0);
  });
});

const resume = (STAG: bigint, bits: bigint, sid = 0x108n): readonly [bigint, bigint] => [
  (sid << 32n) | bits | 0x44n,
  STAG,
];
const RETRY = 1n << 12n;
const ABORT = 1n << 13n;

describe('stalls [3.12, 4.7.1, 4.7.2]', () => {
  const stalling = { event: 0x10, outcome: Outcome.Stall };

  test('a stall is recorded with a STAG of its own; CMD_RESUME retries, aborts or completes RAZ/WI', () => {
    const { r, fault, script, read } = scripted();
    script.next = stalling;
    const clients = [new Client(), new Client(), new Client()];
    for (const client of clients) expect(fault(client)).toBe(Outcome.Stall);
    expect([0, 1, 2].map((i) => (read(i)[1] ?? 0n) & 0x8000ffffn)).toEqual([0x80000000n, 0x80000001n, 0x80000002n]);
    r.issue(resume(0n, RETRY), resume(1n, ABORT), resume(2n, 0n));
    expect(clients.map((c) => c.ends)).toEqual([['retry'], ['abort'], ['razwi']]);
  });

  test('with IDR0.TERM_MODEL a termination is always an abort', () => {
    const { r, fault, script } = scripted({ ...linuxNesting, IDR0: { ...linuxNesting.IDR0, TERM_MODEL: 'ABORT' } });
    script.next = stalling;
    const client = new Client();
    fault(client);
    r.issue(resume(0n, 0n));
    expect(client.ends).toEqual(['abort']);
  });

  test('a STAG of nobody, or of another stream, changes nothing and is no error', () => {
    const { r, fault, script } = scripted();
    script.next = stalling;
    const client = new Client();
    fault(client);
    r.issue(resume(5n, RETRY), resume(0n, RETRY, 0x109n), [0x45n, 0n]);
    expect([client.ends, r.errors, r.cons]).toEqual([[], 0, 3]);
    r.issue(resume(0n, ABORT));
    expect(client.ends).toEqual(['abort']);
    r.issue(resume(0n, ABORT));
    expect(client.ends).toEqual(['abort']);
  });

  test('CMD_STALL_TERM aborts all stalls of one stream', () => {
    const { r, fault, script } = scripted();
    script.next = stalling;
    const [a, b, c] = [new Client(), new Client(), new Client()];
    fault(a);
    fault(b);
    fault(c, 0x109);
    r.issue([0x0000010800000045n, 0n]);
    expect([a, b, c].map((one) => one.ends)).toEqual([['abort'], ['abort'], []]);
  });

  test('clearing SMMUEN aborts every stall', () => {
    const { r, fault, script } = scripted();
    r.write(spec.CR0, spec.CR0.bit('SMMUEN', 'CMDQEN', 'EVENTQEN'));
    script.next = stalling;
    const client = new Client();
    fault(client);
    r.write(spec.CR0, spec.CR0.bit('CMDQEN', 'EVENTQEN'));
    expect(client.ends).toEqual(['abort']);
  });

  test('a stall is never dropped: with a full queue it waits without overflow, and is tried again when there is room', () => {
    const { r, fault, script, read } = scripted();
    for (let i = 0; i < 16; i++) fault();
    script.next = stalling;
    const client = new Client();
    client.again = () => fault(client);
    fault(client);
    expect([r.read(spec.EVENTQ_PROD), client.ends]).toEqual([16, []]);
    r.write(spec.EVENTQ_CONS, 1);
    expect([r.read(spec.EVENTQ_PROD), client.ends]).toEqual([17, ['retry']]);
    expect(read(0)[0]).toBe(0x0000010800000010n);
  });

  test('no more than IDR5.STALL_MAX records are outstanding; a freed STAG lets the next one in', () => {
    const { r, fault, script } = scripted({ ...linuxNesting, IDR5: { ...linuxNesting.IDR5, STALL_MAX: 2 } });
    script.next = stalling;
    const clients = [new Client(), new Client(), new Client()];
    for (const client of clients) {
      client.again = () => fault(client);
      fault(client);
    }
    expect(r.read(spec.EVENTQ_PROD)).toBe(2);
    r.issue(resume(0n, ABORT));
    expect(r.read(spec.EVENTQ_PROD)).toBe(3);
    expect(r.machine.smmus[0]?.stalls.stalled.map(({ STAG }) => STAG)).toEqual([0, 1]);
  });

  test('a client that must not stall is aborted and recorded with Stall 0', () => {
    const { fault, script, read } = scripted();
    script.next = stalling;
    expect(fault(null)).toBe(Outcome.Abort);
    expect((read(0)[1] ?? 0n) & 0x8000ffffn).toBe(0n);
  });
});
