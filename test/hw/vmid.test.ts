import { describe, expect, test } from 'vitest';
import * as registers from '../../spec/registers.ts';
import { linuxNesting } from '../../src/hw/index.ts';
import { VmidAllocator, VmidError, vmidMax } from '../../src/hw/vmid.ts';
import { CMDQ, machineWith, Regs, SYNC_NONE } from './harness.ts';
import { mapPage, PAGE_RW, STRTAB, stage2Ste, turnOn, writeSte } from './stage2.ts';

const codeOf = (act: () => unknown): string => {
  try {
    act();
  } catch (error) {
    if (error instanceof VmidError) return error.code;
    throw error;
  }
  return 'no error';
};

describe('VmidAllocator', () => {
  test('IDR0.VMID16 decides the width: 255 or 65535 is the highest VMID [6.3.1]', () => {
    expect(vmidMax(0)).toBe(255);
    expect(vmidMax(1)).toBe(65535);
  });

  test('hands out 1 first and reuses the lowest free number; 0 is reserved', () => {
    const vmids = new VmidAllocator(vmidMax(0));
    expect([vmids.alloc('a'), vmids.alloc('b'), vmids.alloc('c')]).toEqual([1, 2, 3]);
    vmids.free(3, 'c');
    vmids.free(1, 'a');
    expect([vmids.alloc('d'), vmids.alloc('e'), vmids.alloc('f')]).toEqual([1, 3, 4]);
    expect(vmids.taken).toEqual([1, 2, 3, 4]);
    expect(vmids.ownerOf(3)).toBe('e');
    expect(vmids.ownerOf(0)).toBeUndefined();
  });

  test('255 VMIDs fit 8 bits, the 256th is refused; one freed makes room for one', () => {
    const vmids = new VmidAllocator(vmidMax(0));
    for (let i = 1; i <= 255; i++) expect(vmids.alloc('x')).toBe(i);
    expect(codeOf(() => vmids.alloc('y'))).toBe('exhausted');
    expect(vmids.used).toBe(255);
    vmids.free(77, 'x');
    expect(vmids.alloc('y')).toBe(77);
    expect(codeOf(() => vmids.alloc('y'))).toBe('exhausted');
  });

  test('double and foreign frees are refused and change nothing', () => {
    const vmids = new VmidAllocator(vmidMax(1));
    const vmid = vmids.alloc('a');
    expect(codeOf(() => vmids.free(vmid, 'b'))).toBe('foreign-free');
    expect(vmids.ownerOf(vmid)).toBe('a');
    vmids.free(vmid, 'a');
    expect(codeOf(() => vmids.free(vmid, 'a'))).toBe('double-free');
    expect(codeOf(() => vmids.free(0, 'a'))).toBe('double-free');
    expect(codeOf(() => vmids.free(70000, 'a'))).toBe('double-free');
  });

  test('a range that no SMMU has is refused', () => {
    expect(() => new VmidAllocator(65536)).toThrow(RangeError);
    expect(() => new VmidAllocator(0)).toThrow(RangeError);
  });
});

describe('vmidHolders: the hardware says who names a VMID', () => {
  const started = (): Regs => {
    const r = new Regs(machineWith(linuxNesting, { endpoints: [{ name: 'dev', streamIds: [8] }] }));
    r.start();
    turnOn(r);
    writeSte(r, 8, stage2Ste(3));
    mapPage(r, 0, 0x4080_0000n | PAGE_RW);
    return r;
  };
  const kinds = (r: Regs, vmid: number): string[] =>
    [...new Set((r.machine.smmus[0]?.vmidHolders(vmid) ?? []).map(({ kind }) => kind))].sort();

  test('an STE in memory, then also its cached copy, the TLB and the walk caches, until each is told', () => {
    const r = started();
    expect(r.machine.smmus[0]?.vmidHolders(3)).toEqual([{ kind: 'ste', what: '0x8' }]);
    expect(kinds(r, 4)).toEqual([]);
    r.machine.endpoint('dev').read(0n, 1);
    expect(kinds(r, 3)).toEqual(['cached-ste', 'ste', 'tlb', 'walk-cache']);
    writeSte(r, 8, { V: 1, Config: 'ABORT' });
    expect(kinds(r, 3)).toEqual(['cached-ste', 'tlb', 'walk-cache']);
    r.issue([(8n << 32n) | 3n, 0n], SYNC_NONE);
    expect(kinds(r, 3)).toEqual(['tlb', 'walk-cache']);
    r.issue([(3n << 32n) | 0x28n, 0n], SYNC_NONE);
    expect(kinds(r, 3)).toEqual([]);
  });

  test('a stage 1 stream of an SMMU with stage 2 names one too; bypass, abort and invalid ones do not [3.17]', () => {
    const r = started();
    writeSte(r, 8, { V: 1, Config: 'S1_TRANS', S2VMID: 3 });
    expect(kinds(r, 3)).toEqual(['ste']);
    writeSte(r, 8, { V: 1, Config: 'BYPASS', S2VMID: 3 });
    expect(kinds(r, 3)).toEqual([]);
    writeSte(r, 8, stage2Ste(3, { V: 0 }));
    expect(kinds(r, 3)).toEqual([]);
  });

  test('a two-level table: STEs within each Span count', () => {
    const r = started();
    r.write(registers.CR0, registers.CR0.bit('CMDQEN', 'EVENTQEN'));
    r.machine.memory.write64(0x4050_0000n + 8n, STRTAB | 4n);
    r.write64(registers.STRTAB_BASE, 0x4050_0000n);
    r.write(registers.STRTAB_BASE_CFG, registers.STRTAB_BASE_CFG.value({ FMT: 'TWO_LEVEL', SPLIT: '4K', LOG2SIZE: 8 }));
    writeSte(r, 7, stage2Ste(3));
    expect(r.machine.smmus[0]?.vmidHolders(3)).toEqual([{ kind: 'ste', what: '0x47' }]);
  });

  test('a command that is not consumed', () => {
    const r = started();
    writeSte(r, 8, { V: 0 });
    r.issue([0xffn, 0n], [(3n << 32n) | 0x28n, 0n], [0x30n, 0n]);
    expect(r.machine.smmus[0]?.vmidHolders(3)).toEqual([{ kind: 'command', what: 'smmu0.cmdq 1 CMD_TLBI_S12_VMALL' }]);
    r.machine.memory.write64(CMDQ, 0x46n);
    r.acknowledge();
    expect(kinds(r, 3)).toEqual([]);
  });
});
