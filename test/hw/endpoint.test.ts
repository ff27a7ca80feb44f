import { describe, expect, test } from 'vitest';
import * as spec from '../../spec/registers.ts';
import { type DmaResult, linuxNesting, type MachineConfig } from '../../src/hw/index.ts';
import { EVENTQ, machineWith, Regs, SYNC_NONE } from './harness.ts';
import { mapPage, PAGE_RO, PAGE_RW, stage2Ste, turnOn, writeSte } from './stage2.ts';

function started(more: Partial<MachineConfig> = {}): Regs {
  const r = new Regs(
    machineWith(linuxNesting, {
      endpoints: [
        { name: 'pci', streamIds: [8], bdf: 8 },
        { name: 'soc', streamIds: [9, 10], canStall: true },
      ],
      ...more,
    }),
  );
  r.start();
  turnOn(r);
  return r;
}

const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);

const event = (r: Regs, index: number): bigint[] =>
  [0n, 8n, 16n, 24n].map((at) => r.machine.memory.read64(EVENTQ + BigInt(32 * index) + at));

const CFGI_STE = (sid: bigint): readonly [bigint, bigint] => [(sid << 32n) | 3n, 0n];
const S12_VMALL = (vmid: bigint): readonly [bigint, bigint] => [(vmid << 32n) | 0x28n, 0n];

describe('DMA through stage 2', () => {
  test('an access over a page boundary reaches both pages', () => {
    const r = started();
    writeSte(r, 8, stage2Ste(3));
    mapPage(r, 0, 0x4080_0000n | PAGE_RW);
    mapPage(r, 1, 0x4090_0000n | PAGE_RW);
    expect(r.machine.endpoint('pci').write(0xffen, bytes(1, 2, 3, 4)).status).toBe('ok');
    expect([...r.machine.memory.readBytes(0x4080_0ffen, 2)]).toEqual([1, 2]);
    expect([...r.machine.memory.readBytes(0x4090_0000n, 2)]).toEqual([3, 4]);
    expect(r.machine.endpoint('pci').read(0xfffn, 2)).toEqual({ status: 'ok', data: bytes(2, 3) });
  });

  test('a fault in the second page: what came before is done, and one F_TRANSLATION names the page', () => {
    const r = started();
    writeSte(r, 8, stage2Ste(3));
    mapPage(r, 0, 0x4080_0000n | PAGE_RW);
    expect(r.machine.endpoint('pci').write(0xffen, bytes(1, 2, 3, 4))).toEqual({ status: 'abort', at: 0x1000n });
    expect([...r.machine.memory.readBytes(0x4080_0ffen, 2)]).toEqual([1, 2]);
    expect(r.read(spec.EVENTQ_PROD)).toBe(1);
    expect(event(r, 0)).toEqual([0x0000000800000010n, 0x0000028000000000n, 0x1000n, 0x1000n]);
  });

  test('a write to a read-only page is F_PERMISSION, the read works', () => {
    const r = started();
    writeSte(r, 8, stage2Ste(3));
    mapPage(r, 0, 0x4080_0000n | PAGE_RO);
    expect(r.machine.endpoint('pci').read(0n, 1).status).toBe('ok');
    expect(r.machine.endpoint('pci').write(0n, bytes(1)).status).toBe('abort');
    expect(event(r, 0)[0]).toBe(0x0000000800000013n);
  });

  test('an output address outside memory aborts without an event [3.12]', () => {
    const r = started();
    writeSte(r, 8, stage2Ste(3));
    mapPage(r, 0, 0x1000_0000n | PAGE_RW);
    expect(r.machine.endpoint('pci').read(0n, 4)).toEqual({ status: 'abort', at: 0n });
    expect(r.read(spec.EVENTQ_PROD)).toBe(0);
  });

  test('an atomic returns the old contents', () => {
    const r = started();
    writeSte(r, 8, stage2Ste(3));
    mapPage(r, 0, 0x4080_0000n | PAGE_RW);
    r.machine.memory.write32(0x4080_0000n, 0x11223344);
    expect(r.machine.endpoint('pci').write(0n, bytes(9, 8, 7, 6), { atomic: true })).toEqual({
      status: 'ok',
      data: bytes(0x44, 0x33, 0x22, 0x11),
    });
    expect(r.machine.memory.read32(0x4080_0000n)).toBe(0x06070809);
  });

  test('a cached translation lives until its TLBI, a cached STE until its CFGI [5.6]', () => {
    const r = started();
    writeSte(r, 8, stage2Ste(3));
    mapPage(r, 0, 0x4080_0000n | PAGE_RW);
    r.machine.memory.write8(0x4080_0000n, 1);
    r.machine.memory.write8(0x4090_0000n, 2);
    const pci = r.machine.endpoint('pci');
    const first = (): DmaResult => pci.read(0n, 1);
    expect(first()).toEqual({ status: 'ok', data: bytes(1) });
    mapPage(r, 0, 0x4090_0000n | PAGE_RW);
    expect(first()).toEqual({ status: 'ok', data: bytes(1) });
    r.issue(S12_VMALL(4n), SYNC_NONE);
    expect(first()).toEqual({ status: 'ok', data: bytes(1) });
    r.issue(S12_VMALL(3n), SYNC_NONE);
    expect(first()).toEqual({ status: 'ok', data: bytes(2) });
    writeSte(r, 8, { V: 1, Config: 'ABORT' });
    expect(first()).toEqual({ status: 'ok', data: bytes(2) });
    r.issue(CFGI_STE(8n), SYNC_NONE);
    expect(first()).toEqual({ status: 'abort', at: 0n });
    expect(r.read(spec.EVENTQ_PROD)).toBe(0);
  });

  test('SMMUEN 0: traffic passes untranslated, or aborts with GBPA.ABORT [6.3.9.6]', () => {
    const r = started();
    r.write(spec.CR0, 0);
    r.machine.memory.write8(0x4080_0000n, 7);
    const pci = r.machine.endpoint('pci');
    expect(pci.read(0x4080_0000n, 1)).toEqual({ status: 'ok', data: bytes(7) });
    r.write(spec.GBPA, spec.GBPA.bit('Update', 'ABORT'));
    expect(pci.read(0x4080_0000n, 1)).toEqual({ status: 'abort', at: 0x4080_0000n });
    expect(r.read(spec.EVENTQ_PROD)).toBe(0);
  });

  test('a StreamID beyond the table is C_BAD_STREAMID', () => {
    const r = started({ endpoints: [{ name: 'far', streamIds: [0x100] }] });
    expect(r.machine.endpoint('far').read(0n, 1).status).toBe('abort');
    expect(event(r, 0)).toEqual([0x0000010000000002n, 0n, 0n, 0n]);
  });
});

describe('stalled DMA [3.12]', () => {
  const stalled = (): Regs => {
    const r = started();
    writeSte(r, 10, stage2Ste(3, { S2S: 1 }));
    mapPage(r, 0, 0x4080_0000n | PAGE_RW);
    return r;
  };

  test('waits, and goes on where it was when resumed after the page was mapped', () => {
    const r = stalled();
    const ended: string[] = [];
    const result = r.machine.endpoint('soc').write(0xffen, bytes(1, 2, 3, 4), { stream: 1 });
    expect(result.status).toBe('stall');
    if (result.status === 'stall') result.pending.onDone = ({ status }) => ended.push(status);
    expect((event(r, 0)[1] ?? 0n) & 0x8000ffffn).toBe(0x80000000n);
    mapPage(r, 1, 0x4090_0000n | PAGE_RW);
    r.issue([(10n << 32n) | 0x1044n, 0n]);
    expect(ended).toEqual(['ok']);
    expect([...r.machine.memory.readBytes(0x4090_0000n, 2)]).toEqual([3, 4]);
  });

  test('terminated: aborts, or reads zero', () => {
    const r = stalled();
    const soc = r.machine.endpoint('soc');
    const aborted = soc.read(0x1000n, 4, { stream: 1 });
    const zero = soc.read(0x1000n, 4, { stream: 1 });
    r.issue([(10n << 32n) | 0x2044n, 0n], [(10n << 32n) | 0x44n, 1n]);
    expect(aborted.status === 'stall' && aborted.pending.result).toEqual({ status: 'abort', at: 0x1000n });
    expect(zero.status === 'stall' && zero.pending.result).toEqual({ status: 'ok', data: bytes(0, 0, 0, 0) });
  });
});

test('inputs are bounded', () => {
  const r = started();
  const pci = r.machine.endpoint('pci');
  expect(() => pci.read(0n, 1 << 25)).toThrow(RangeError);
  expect(() => pci.read(-1n, 1)).toThrow(RangeError);
  expect(() => pci.read(1n << 64n, 1)).toThrow(RangeError);
  expect(() => pci.read(0n, 1, { stream: 1 })).toThrow('pci has 1 StreamIDs');
  expect(() => pci.read(0n, 1, { SubstreamID: 1 << 20 })).toThrow(RangeError);
  expect(() => r.machine.endpoint('nobody')).toThrow('no endpoint nobody');
});
