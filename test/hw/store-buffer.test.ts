import { describe, expect, test } from 'vitest';
import { Memory } from '../../src/hw/memory.ts';
import { Schedule } from '../../src/hw/schedule.ts';
import { StoreBuffer } from '../../src/hw/store-buffer.ts';

const BASE = 0x1000;

function make(): { readonly memory: Memory; readonly stores: StoreBuffer } {
  const memory = new Memory();
  memory.addRegion(0n, 0x4000n);
  return { memory, stores: new StoreBuffer('cpu0.stores', memory, new Schedule({ mode: 'seeded' }), () => {}) };
}

describe('a store that changes nothing is none: nobody can tell when it becomes visible', () => {
  test('of what stands there, with nothing on its way', () => {
    const { memory, stores } = make();
    memory.store64(0, BASE, 1, 2);
    expect(stores.store64(0, BASE, 1, 2)).toBe(true);
    expect(stores.store32(0, BASE + 4, 1)).toBe(true);
    expect(stores.size).toBe(0);
    expect(stores.store32(0, BASE + 4, 2)).toBe(true);
    expect(stores.size).toBe(1);
  });

  test('but it waits behind an earlier one to the same unit, and is the last word', () => {
    const { memory, stores } = make();
    stores.store64(0, BASE, 0, 7);
    stores.store64(0, BASE, 0, 0);
    expect(stores.size).toBe(2);
    stores.drain();
    memory.load64(0, BASE);
    expect([memory.hi, memory.lo]).toEqual([0, 0]);
  });

  test('nor is there memory where there is none', () => {
    const { stores } = make();
    expect(stores.store64(0, 0x8000, 0, 0)).toBe(false);
  });
});
