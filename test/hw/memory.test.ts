import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { BusError } from '../../src/hw/bus.ts';
import { Exchange, Memory } from '../../src/hw/memory.ts';

/** Two regions that touch in the middle of a stored page, and one far away. */
function memory(): Memory {
  const m = new Memory();
  m.addRegion(0x4000_0000n, 0x3000n);
  m.addRegion(0x4000_3000n, 0x2_0000n);
  m.addRegion(0xff_ffff_ffff_0000n, 0x1_0000n);
  return m;
}

test('memory is little-endian in every width, aligned or not', () => {
  const m = memory();
  m.writeBytes(0x4000_0000n, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8, 9));
  expect(m.read8(0x4000_0002n)).toBe(3);
  expect(m.read16(0x4000_0001n)).toBe(0x0302);
  expect(m.read32(0x4000_0003n)).toBe(0x07060504);
  expect(m.read64(0x4000_0000n)).toBe(0x0807060504030201n);
  expect(m.read64(0x4000_0001n)).toBe(0x0908070605040302n);
  m.write64(0x4000_0005n, 0xfedc_ba98_7654_3210n);
  expect([...m.readBytes(0x4000_0004n, 10)]).toEqual([5, 0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe, 0]);
});

test('halves: a load leaves signed 32-bit integers, unsigned and signed addresses mean the same', () => {
  const m = new Memory();
  m.addRegion(0x8000_0000n, 0x1000n);
  m.write64(0x8000_0ff8n, 0xffff_fffe_8000_0001n);
  expect(m.load64(0, 0x8000_0ff8)).toBe(true);
  expect([m.hi, m.lo]).toEqual([-2, -0x7fff_ffff]);
  expect(m.load64(0, 0x8000_0ff8 | 0)).toBe(true);
  expect([m.hi, m.lo]).toEqual([-2, -0x7fff_ffff]);
  expect(m.load32(0, 0x8000_0ffc)).toBe(true);
  expect([m.hi, m.lo]).toEqual([0, -2]);
});

test('outside every region: false from the hot face, BusError from the edge, and nothing written in part', () => {
  const m = memory();
  expect(m.load64(0, 0x3fff_fff8)).toBe(false);
  expect(m.store64(1, 0x4000_0000, 0, 0)).toBe(false);
  expect(m.load64(0x0100_0000, 0x4000_0000)).toBe(false);
  expect(() => m.read64(0x4002_2ffcn)).toThrow(BusError);
  expect(() => m.read64(-8n)).toThrow(BusError);
  expect(() => m.read8(1n << 56n)).toThrow(BusError);
  expect(() => m.writeBytes(0x4002_2ffcn, new Uint8Array(8).fill(7))).toThrow(BusError);
  expect(m.read32(0x4002_2ffcn)).toBe(0);
});

test('accesses across regions that touch, and across stored pages', () => {
  const m = memory();
  m.write64(0x4000_2ffcn, 0x1122_3344_5566_7788n);
  expect(m.read32(0x4000_2ffcn)).toBe(0x5566_7788);
  expect(m.read32(0x4000_3000n)).toBe(0x1122_3344);
  m.fill(0x4000_fff0n, 0x20, 0xab);
  expect(m.read64(0x4000_fffcn)).toBe(0xabab_abab_abab_ababn);
  expect(m.read8(0x4000_ffefn)).toBe(0);
  expect(m.read8(0x4001_0010n)).toBe(0);
  m.write64(0xff_ffff_ffff_fff8n, 5n);
  expect(m.read64(0xff_ffff_ffff_fff8n)).toBe(5n);
});

test('reading costs no memory, writing only what is touched', () => {
  const m = new Memory();
  m.addRegion(0n, 1n << 48n);
  for (let at = 0n; at < 1n << 48n; at += 1n << 42n) expect(m.read64(at)).toBe(0n);
  expect(m.bytesInUse).toBe(0);
  m.write8(1n << 47n, 1);
  expect(m.bytesInUse).toBeLessThanOrEqual(0x1_0000);
});

test("a region may show a caller's ArrayBuffer", () => {
  const backing = new ArrayBuffer(0x3_4000);
  const m = new Memory();
  m.addRegion(0x5000n, 0x3_4000n, backing);
  const view = new DataView(backing);
  view.setUint32(0, 0xcafe, true);
  expect(m.read32(0x5000n)).toBe(0xcafe);
  m.write64(0x5000n + 0x2_0000n, 0x1234n);
  expect(view.getUint32(0x2_0000, true)).toBe(0x1234);
  expect(m.load64(0, 0x5000 + 0x2_0000)).toBe(true);
  expect(m.lo).toBe(0x1234);
  m.write8(0x5000n + 0x3_3fffn, 9);
  expect(view.getUint8(0x3_3fff)).toBe(9);
  expect(m.load64(0, 0x5000 + 0x3_4000)).toBe(false);
});

test('regions that overlap, leave the address space or are no 4 KiB units are refused', () => {
  const m = memory();
  expect(() => m.addRegion(0x4000_2000n, 0x1000n)).toThrow(RangeError);
  expect(() => m.addRegion(0xff_ffff_fffe_f000n, 0x2000n)).toThrow(RangeError);
  expect(() => m.addRegion(0x100n, 0x1000n)).toThrow(RangeError);
  expect(() => m.addRegion(0x1000n, 0n)).toThrow(RangeError);
  expect(() => m.addRegion(0x1000n, 0x2000n, new ArrayBuffer(0x1000))).toThrow(RangeError);
});

test('compare and exchange stores only over the expected value (3.13)', () => {
  const m = memory();
  m.write64(0x4000_0008n, 0x1_0000_0002n);
  expect(m.compareExchange64(0, 0x4000_0008, 1, 3, 9, 9)).toBe(Exchange.Different);
  expect([m.hi, m.lo]).toEqual([1, 2]);
  expect(m.compareExchange64(0, 0x4000_0008, 1, 2, 0x8000_0000, 7)).toBe(Exchange.Done);
  expect(m.read64(0x4000_0008n)).toBe(0x8000_0000_0000_0007n);
  expect(m.compareExchange64(0, 0, 0, 0, 0, 0)).toBe(Exchange.Abort);
});

test('the watch sees every store once, with address and length', () => {
  const m = memory();
  const seen: string[] = [];
  m.watch = (hi, lo, bytes) => seen.push(`${hi}:${(lo >>> 0).toString(16)}+${bytes}`);
  m.store64(0, 0x4000_0010, 1, 2);
  m.store32(0, 0x4000_0020, 1);
  m.writeBytes(0x4000_fffen, new Uint8Array(5));
  m.fill(0x4000_0000n, 0x1000, 1);
  m.compareExchange64(0, 0x4000_0030, 5, 5, 6, 6);
  m.load64(0, 0x4000_0010);
  expect(seen).toEqual(['0:40000010+8', '0:40000020+4', '0:4000fffe+5', '0:40000000+4096']);
});

test('memory equals an array of bytes under any mix of accesses', () => {
  const base = 0x4000_0000n;
  const size = 0x2_3000;
  const at = fc.integer({ min: 0, max: size - 8 });
  const op = fc.oneof(
    fc.record({ op: fc.constant('write64' as const), at, value: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }) }),
    fc.record({ op: fc.constant('write32' as const), at, value: fc.bigInt({ min: 0n, max: (1n << 32n) - 1n }) }),
    fc.record({ op: fc.constant('fill' as const), at, value: fc.bigInt({ min: 0n, max: 255n }) }),
  );
  fc.assert(
    fc.property(fc.array(op, { maxLength: 40 }), (ops) => {
      const m = memory();
      const model = new Uint8Array(size);
      const view = new DataView(model.buffer);
      for (const o of ops) {
        if (o.op === 'write64') {
          m.write64(base + BigInt(o.at), o.value);
          view.setBigUint64(o.at, o.value, true);
        } else if (o.op === 'write32') {
          m.write32(base + BigInt(o.at), Number(o.value));
          view.setUint32(o.at, Number(o.value), true);
        } else {
          const n = Math.min(0x1_2345, size - o.at);
          m.fill(base + BigInt(o.at), n, Number(o.value));
          model.fill(Number(o.value), o.at, o.at + n);
        }
        expect(m.read64(base + BigInt(o.at))).toBe(view.getBigUint64(o.at, true));
      }
      expect(Buffer.compare(m.readBytes(base, size), model)).toBe(0);
    }),
    { numRuns: 40 },
  );
});
