import { describe, expect, test } from 'vitest';
import { VmidAllocator, VmidError, vmidMax } from '../../src/hw/vmid.ts';

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
