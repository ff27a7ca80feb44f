/** A nested stream: STE as Linux 7.2 wrote it, the VM's own memory as recorded, a stage 2 made of one 1 GB block. */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { capsOf } from '../../spec/caps.ts';
import { inspect } from '../../src/inspect/inspect.ts';
import { bufferSource, ImageMemory } from '../../src/inspect/memory.ts';
import { mapRange } from '../../src/inspect/ranges.ts';
import { translateOnImage } from '../../src/inspect/translate.ts';

const DATA = new URL('../data/linux-7.2-iommufd-nested/', import.meta.url);
const vm = z
  .object({ writes: z.array(z.object({ before: z.number(), gpa: z.string(), hex: z.string() })) })
  .parse(JSON.parse(readFileSync(new URL('vm.json', DATA), 'utf8')));

/** The recorded STE of StreamID 0x28 attached to a nested domain, VMID 1; stage 2 starts at level 0, 44-bit input. */
const STE = [0x8000100fn, 0x800d6n, 0x44c359400000001n, 0x41c2a000n, 0n, 0n, 0n, 0n];
const IDS = { IDR0: 0xd44101b, IDR1: 0x2730010, IDR3: 0x1414, IDR5: 0x74, AIDR: 1 };
const caps = capsOf(IDS);

const STRTAB = 0x40000000n;
/** The VM's memory at IPA 0x80000000 lies here. */
const RAM = 0x200000000n;
const VM_BASE = 0x80000000n;

const bytesOf = (words: readonly bigint[]): Uint8Array => new Uint8Array(BigUint64Array.from(words).buffer);

/** The memory of the VM before anything was changed: the writes that stand before the first DMA. */
function vmMemory(): Uint8Array {
  const out = new Uint8Array(0x400000);
  const first = vm.writes[0]?.before ?? 0;
  for (const { before, gpa, hex } of vm.writes)
    if (before === first) out.set(Buffer.from(hex, 'hex'), Number(BigInt(gpa) - VM_BASE));
  return out;
}

function images(stes: readonly (readonly [sid: number, ste: readonly bigint[]])[]): ImageMemory {
  const table = new Uint8Array(64 * 0x100);
  for (const [sid, ste] of stes) table.set(bytesOf(ste), 64 * sid);
  const l0 = new Uint8Array(0x1000);
  l0.set(bytesOf([0x41c2b003n]));
  const l1 = new Uint8Array(0x1000);
  l1.set(bytesOf([RAM | 0x7fdn]), 16); // IPA 0x80000000 to 0xbfffffff: read and write, write-back.
  const memory = new ImageMemory();
  const pieces: [bigint, Uint8Array][] = [
    [STRTAB, table],
    [0x41c2a000n, l0],
    [0x41c2b000n, l1],
    [RAM, vmMemory()],
  ];
  for (const [base, bytes] of pieces)
    memory.add({ base, length: bytes.length, name: `0x${base.toString(16)}`, source: bufferSource(bytes), offset: 0 });
  return memory;
}

const registers = new Map<string, bigint>([
  ...Object.entries(IDS).map(([name, value]) => [name, BigInt(value)] as const),
  ['STRTAB_BASE', STRTAB],
  ['STRTAB_BASE_CFG', 8n],
]);

const memory = images([[0x28, STE]]);

describe('a nested stream', () => {
  test('its CD is found through stage 2: ASID 0x11, root A at IPA 0x80010000', () => {
    const found = inspect(memory, registers);
    expect(found.problems).toEqual([]);
    expect(found.streams).toMatchObject([{ sid: 0x28, cds: [{ ssid: 0, pa: '0x200001000', cd: { valid: true } }] }]);
    const fields = found.streams[0]?.cds?.[0]?.cd.fields ?? [];
    expect(fields.find(({ name }) => name === 'ASID')?.value).toBe('0x11');
    expect(fields.find(({ name }) => name === 'TTB0')?.meaning).toBe('0x80010000');
    expect(found.vmids).toEqual([{ vmid: 1, sids: [0x28], tables: ['0x41c2a000'] }]);
  });

  test('0x10000 leads to IPA 0x80302000, through both stages [README of the recording]', () => {
    const result = translateOnImage(memory, registers, caps, { sid: 0x28, iova: 0x10004n, write: true });
    expect(result).toMatchObject({ outcome: 'ok', pa: '0x200302004', vmid: 1, asid: 0x11 });
    const kinds = result.steps.map(({ what }) => what);
    expect(kinds.filter((what) => what === 'S1')).toHaveLength(4);
    expect(kinds.filter((what) => what === 'S2')).toHaveLength(2 * 6);
  });

  test('0x12000 leads to IPA 0xf0000000, which stage 2 does not map: an event of stage 2, CLASS IN', () => {
    const result = translateOnImage(memory, registers, caps, { sid: 0x28, iova: 0x12000n });
    expect(result).toMatchObject({ outcome: 'abort', event: { name: 'F_TRANSLATION', recorded: true } });
    const value = (name: string) => result.event?.fields.find((field) => field.name === name);
    expect(value('S2')?.value).toBe('0x1');
    expect(value('CLASS')?.meaning).toMatch(/^IN/);
    expect(value('IPA')?.meaning).toBe('0xf0000000');
  });

  test('0x11000 is read-only for the VM: a fault of stage 1', () => {
    const result = translateOnImage(memory, registers, caps, { sid: 0x28, iova: 0x11000n, write: true });
    expect(result.event?.name).toBe('F_PERMISSION');
    expect(result.event?.fields.find(({ name }) => name === 'S2')?.value).toBe('0x0');
  });

  test('the mapped ranges are those of root A', () => {
    const { ranges, complete } = mapRange(memory, registers, caps, { sid: 0x28, from: 0n, to: (1n << 48n) - 1n });
    expect(complete).toBe(true);
    expect(ranges.filter(({ pa }) => pa !== undefined)).toMatchObject([
      { from: '0x10000', to: '0x10fff', pa: '0x200302000' },
      { from: '0x11000', to: '0x11fff', pa: '0x200303000', permissions: expect.stringMatching(/^r-/) },
      { from: '0x200000', to: '0x200fff', pa: '0x200304000' },
    ]);
  });
});

test('an illegal nested STE is listed with its problems, and its absurd sizes are not followed', () => {
  // S1CDMax = 31, far above IDR1.SSIDSIZE = 20.
  const pasid = new Map(registers).set('IDR1', BigInt(IDS.IDR1 | (20 << 6))).set('IDR0', BigInt(IDS.IDR0 | (1 << 19)));
  const found = inspect(images([[0x28, STE.with(0, 0xf80000008000101fn)]]), pasid);
  expect(found.problems).toMatchObject([{ rule: 'STE-S14', sid: 0x28 }]);
  expect(found.streams).toMatchObject([{ sid: 0x28, cds: [] }]);
});

test('random tables are inspected, never a crash', () => {
  const words = fc.array(fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }), { minLength: 8, maxLength: 32 });
  fc.assert(
    fc.property(words, fc.bigInt({ min: 0n, max: 0x3ffffn }), (random, cfg) => {
      const memory = new ImageMemory();
      const bytes = bytesOf(random);
      memory.add({ base: 0n, length: bytes.length, name: 'random', source: bufferSource(bytes), offset: 0 });
      const found = inspect(memory, new Map(registers).set('STRTAB_BASE', 0n).set('STRTAB_BASE_CFG', cfg), {
        brief: true,
      });
      expect(JSON.parse(JSON.stringify(found))).toEqual(found);
    }),
    { numRuns: 60 },
  );
});

describe('tags that two streams share', () => {
  const rules = (...stes: (readonly bigint[])[]) =>
    inspect(images(stes.map((ste, i) => [0x28 + i, ste] as const)), registers, { brief: true }).problems.map(
      ({ rule }) => rule,
    );

  test('the same stage 2 under one VMID is no conflict', () => {
    expect(rules(STE, STE)).toEqual([]);
  });

  test('two stage 2 tables under one VMID are CFG-10 [5.2.1]', () => {
    expect(rules(STE, STE.with(3, 0x41c2b000n))).toContain('CFG-10');
  });

  test('a stage 1 stream and a nested one under one VMID are CFG-12 [3.17]', () => {
    const s1 = [0x20000100bn, 0xd6n, 1n, 0n, 0n, 0n, 0n, 0n];
    expect(rules(STE, s1)).toContain('CFG-12');
    expect(rules(STE, s1.with(2, 0n))).toEqual([]);
  });

  test('two CDs with one ASID that differ are CFG-11 [5.4.1]', () => {
    const other = STE.with(0, 0x8000200fn);
    expect(rules(STE, other)).toEqual([]); // ASIDs 0x11 and 0x12
    const s1 = (cd: bigint) => [cd | 0xbn, 0xd6n, 0n, 0n, 0n, 0n, 0n, 0n];
    const ram = vmMemory();
    ram.set(ram.subarray(0x1000, 0x1008), 0x2000); // ASID 0x11 for CD B, too
    const memory = images([
      [1, s1(0x300001000n)],
      [2, s1(0x300002000n)],
    ]);
    memory.add({ base: 0x300000000n, length: ram.length, name: 'copy', source: bufferSource(ram), offset: 0 });
    expect(inspect(memory, registers, { brief: true }).problems.map(({ rule }) => rule)).toContain('CFG-11');
  });
});
