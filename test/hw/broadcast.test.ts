import { describe, expect, test } from 'vitest';
import * as spec from '../../spec/registers.ts';
import { linuxNesting, type SmmuConfig } from '../../src/hw/index.ts';
import { machineWith, Regs } from './harness.ts';
import { mapPage, PAGE_RW, stage2Ste, turnOn, writeSte } from './stage2.ts';

const btm: SmmuConfig = { ...linuxNesting, IDR0: { ...linuxNesting.IDR0, BTM: 1 } };

function cached(config: SmmuConfig = btm): { r: Regs; held: () => number } {
  const r = new Regs(machineWith(config, { endpoints: [{ name: 'dev', streamIds: [8] }] }));
  r.start();
  turnOn(r);
  writeSte(r, 8, stage2Ste(3));
  mapPage(r, 0, 0x4080_0000n | PAGE_RW);
  mapPage(r, 1, 0x4080_1000n | PAGE_RW);
  r.machine.endpoint('dev').read(0xffen, 4);
  const held = (): number => r.machine.smmus[0]?.caches.vmidHolders(3).filter(({ kind }) => kind === 'tlb').length ?? 0;
  expect(held()).toBe(2);
  return { r, held };
}

describe('broadcast TLB maintenance [3.17]', () => {
  test('VMALLS12E1 of the VMID drops it, of another does not', () => {
    const { r, held } = cached();
    r.machine.broadcastTlbi({ op: 'VMALLS12E1', VMID: 4 });
    expect(held()).toBe(2);
    r.machine.broadcastTlbi({ op: 'VMALLS12E1', VMID: 3 });
    expect(held()).toBe(0);
  });

  test('IPAS2E1 drops one page; a range drops what it covers', () => {
    const { r, held } = cached();
    r.machine.broadcastTlbi({ op: 'IPAS2LE1', VMID: 3, address: 0x1000n });
    expect(held()).toBe(1);
    const other = cached();
    other.r.machine.broadcastTlbi({ op: 'IPAS2E1', VMID: 3, address: 0n, range: { TG: 1, NUM: 0, SCALE: 0, TTL: 0 } });
    expect(other.held()).toBe(0);
  });

  test('stage 1 operations leave stage 2 entries; ALLE1 takes all', () => {
    const { r, held } = cached();
    r.machine.broadcastTlbi({ op: 'VMALLE1', VMID: 3 });
    expect(held()).toBe(2);
    r.machine.broadcastTlbi({ op: 'ALLE1' });
    expect(held()).toBe(0);
  });

  test('CR2.PTM = 1, or no IDR0.BTM: no part is taken', () => {
    const { r, held } = cached();
    r.write(spec.CR0, spec.CR0.bit('CMDQEN', 'EVENTQEN'));
    r.write(spec.CR2, spec.CR2.bit('PTM'));
    r.write(spec.CR0, spec.CR0.bit('SMMUEN', 'CMDQEN', 'EVENTQEN'));
    r.machine.broadcastTlbi({ op: 'ALLE1' });
    expect(held()).toBe(2);
    const without = cached(linuxNesting);
    without.r.machine.broadcastTlbi({ op: 'ALLE1' });
    expect(without.held()).toBe(2);
  });

  test("a VMID wider than the SMMU's matches nothing", () => {
    const { r, held } = cached({ ...btm, IDR0: { ...btm.IDR0, VMID16: 0 } });
    r.machine.broadcastTlbi({ op: 'VMALLS12E1', VMID: 0x103 });
    expect(held()).toBe(2);
    r.machine.broadcastTlbi({ op: 'VMALLS12E1', VMID: 3 });
    expect(held()).toBe(0);
  });

  test('operands that no instruction has are refused', () => {
    const { r } = cached();
    expect(() => r.machine.broadcastTlbi({ op: 'ALLE1', VMID: 65536 })).toThrow(RangeError);
    expect(() => r.machine.broadcastTlbi({ op: 'VAE1', address: 1n << 64n })).toThrow(RangeError);
    expect(() => r.machine.broadcastTlbi({ op: 'VAE1', range: { TG: 1, NUM: 32, SCALE: 0, TTL: 0 } })).toThrow(
      RangeError,
    );
  });
});
