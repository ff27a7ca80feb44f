import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { type Dump, dump } from '../../src/inspect/dump.ts';
import { InputError } from '../../src/inspect/error.ts';
import { memoryOf, readManifest } from '../../src/inspect/manifest.ts';
import { bufferSource, ImageMemory } from '../../src/inspect/memory.ts';
import { isAbort, MANIFEST, recorded } from './recorded.ts';

const scratch = mkdtempSync(join(tmpdir(), 'smmulab-dump-'));
afterAll(() => rmSync(scratch, { recursive: true }));

/** Registers of an SMMU with 16-bit StreamIDs, two-level tables, stage 1 only, 44-bit addresses. */
const QEMU = { IDR0: 0xd44101an, IDR1: 0x2730010n, IDR3: 0x1404n, IDR5: 0x74n, AIDR: 1n };

const registers = (values: Readonly<Record<string, bigint>>) => new Map(Object.entries({ ...QEMU, ...values }));

const memory = (pieces: readonly (readonly [base: bigint, bytes: Uint8Array])[]): ImageMemory => {
  const out = new ImageMemory();
  for (const [base, bytes] of pieces)
    out.add({
      base,
      length: bytes.length,
      name: `image at 0x${base.toString(16)}`,
      source: bufferSource(bytes),
      offset: 0,
    });
  return out;
};

const bytesOf = (words: readonly bigint[]): Uint8Array => new Uint8Array(BigUint64Array.from(words).buffer);

/** STE of stage 1 with its CD at an address, as Linux writes it; a CD with ASID 5. */
const STE = (cd: bigint): bigint[] => [cd | 0xbn, 0xd6n, 0n, 0n, 0n, 0n, 0n, 0n];
const CD = [0x5e204c0003510n, 0x44a16000n, 0n, 0xfffffffff404ff44n, 0n, 0n, 0n, 0n];
const ZERO = [0n, 0n, 0n, 0n, 0n, 0n, 0n, 0n];

describe('the recorded dump', () => {
  const manifest = readManifest(recorded('manifest.json'));
  const dumps = manifest.phases.map((phase) =>
    dump(memoryOf(manifest, phase), phase.registers, { phase: phase.phase }),
  );

  test.each(MANIFEST.phases.map((phase, i) => [phase.phase, i] as const))(
    'phase %s: the streams, STE words and CD words that the recorder found',
    (name, i) => {
      const [truth, got] = [MANIFEST.phases[i], dumps[i]];
      expect(got?.phase).toBe(name);
      const kept = truth?.streams.filter(({ ste }) => !isAbort(ste)) ?? [];
      expect(
        got?.streams.map(({ sid, pa, words, cds }) => ({
          sid,
          pa,
          words,
          cds: cds?.map(({ ssid, pa, words }) => ({ ssid, pa, words })),
        })),
      ).toEqual(
        kept.map(({ sid, ste_gpa, ste, cds }) => ({
          sid: Number(sid),
          pa: ste_gpa,
          words: ste,
          cds: cds?.map(({ ssid, cd_gpa, cd }) => ({ ssid, pa: cd_gpa, words: cd })),
        })),
      );
      expect(got?.problems).toEqual([]);
    },
  );

  test('the Stream table is described by its registers: 0x44aa3000, 2^16 StreamIDs, split 8', () => {
    expect(dumps[0]?.strtab).toEqual({ format: 'two-level', base: '0x44aa3000', log2size: 16, split: 8 });
  });

  test('an aliased device shares its CD table: equal bytes at one address are fine', () => {
    const cds = (sid: number) => dumps[0]?.streams.find((stream) => stream.sid === sid)?.cds?.map(({ pa }) => pa);
    expect(cds(0x300)).toEqual(['0x44ad6000']);
    expect(cds(0x308)).toEqual(['0x44ad6000']);
  });

  test('with all, abort and invalid entries are listed too: four arrays of 256 STEs', () => {
    const phase = manifest.phases.find(({ phase }) => phase === 'vfio-blocked');
    if (phase === undefined) throw new Error('no such phase');
    const all = dump(memoryOf(manifest, phase), phase.registers, { all: true });
    expect(all.streams.length).toBe(4 * 256);
    expect(all.streams.find(({ sid }) => sid === 0x28)?.words[0]).toBe('0x1');
  });
});

describe('tables [IHI 0070 3.3.1, 3.3.2]', () => {
  const base = 0x80000000n;
  const linear = (log2: number) => registers({ STRTAB_BASE: base, STRTAB_BASE_CFG: BigInt(log2) });
  const sids = (one: Dump): number[] => one.streams.map(({ sid }) => sid);

  test('a linear table', () => {
    const table = [...ZERO, ...STE(0x90000000n), ...ZERO, ...STE(0x90000000n)];
    const found = dump(
      memory([
        [base, bytesOf(table)],
        [0x90000000n, bytesOf(CD)],
      ]),
      linear(2),
    );
    expect(found.strtab).toEqual({ format: 'linear', base: '0x80000000', log2size: 2 });
    expect(sids(found)).toEqual([1, 3]);
    expect(found.streams[0]?.cds).toMatchObject([{ ssid: 0, cd: { kind: 'cd', valid: true } }]);
    expect(found.problems).toEqual([]);
  });

  test('a table of 2^20 entries that is mostly zero is read whole and found fast', () => {
    const bytes = new Uint8Array(64 << 20);
    bytes.set(bytesOf(STE(0x90000000n)), 64 * 0xfffff);
    const wide = new Map(linear(20)).set('IDR1', 0x2730014n);
    const found = dump(
      memory([
        [base, bytes],
        [0x90000000n, bytesOf(CD)],
      ]),
      wide,
    );
    expect(sids(found)).toEqual([0xfffff]);
  });

  test('LOG2SIZE beyond IDR1.SIDSIZE counts as SIDSIZE [6.3.25]', () => {
    const found = dump(
      memory([
        [base, bytesOf(STE(0x90000000n))],
        [0x90000000n, bytesOf(CD)],
      ]),
      linear(20),
    );
    expect(found.problems).toMatchObject([
      { rule: 'DUMP-STRTAB', message: expect.stringContaining('0x1 to 0xffff at') },
    ]);
    expect(sids(found)).toEqual([0]);
  });

  test('a Stream table outside the images is a problem, and the rest is listed', () => {
    const found = dump(
      memory([
        [base + 128n, bytesOf(STE(0x90000000n))],
        [0x90000000n, bytesOf(CD)],
      ]),
      linear(2),
    );
    expect(sids(found)).toEqual([2]);
    expect(found.problems.map(({ message }) => message)).toEqual([
      'the STEs of StreamID 0x0 to 0x1 at 0x80000000 are in no image',
      'the STEs of StreamID 0x3 at 0x800000c0 are in no image',
    ]);
    expect(dump(memory([]), linear(2))).toMatchObject({ streams: [], problems: [{ rule: 'DUMP-STRTAB' }] });
  });

  test('a two-level table: Span counts, a Span above SPLIT+1 is a problem [5.1]', () => {
    const two = registers({ STRTAB_BASE: base, STRTAB_BASE_CFG: 0x10000n | (6n << 6n) | 8n });
    const l1 = bytesOf([0x81000000n | 2n, 0n, 0x82000000n | 8n, 0n]);
    const l2 = bytesOf([...STE(0x90000000n), ...STE(0x90000000n), ...STE(0x90000000n)]);
    const found = dump(
      memory([
        [base, l1],
        [0x81000000n, l2],
        [0x90000000n, bytesOf(CD)],
      ]),
      two,
    );
    expect(found.strtab).toEqual({ format: 'two-level', base: '0x80000000', log2size: 8, split: 6 });
    expect(sids(found)).toEqual([0, 1]);
    expect(found.problems).toMatchObject([{ rule: 'L1STD-SPAN', section: '5.1', sid: 128 }]);
  });

  test('the CDs of substreams, linear and in leaves of 64 [5.2 S1Fmt]', () => {
    // An SMMU with 20-bit SubstreamIDs and two-level CD tables.
    const pasid = new Map(linear(0)).set('IDR0', QEMU.IDR0 | (1n << 19n)).set('IDR1', QEMU.IDR1 | (20n << 6n));
    const at = (fmt: bigint, log2: bigint) =>
      bytesOf([0x9000000bn | (fmt << 4n) | (log2 << 59n), 0xd6n, ...ZERO.slice(2)]);
    const three = bytesOf([...CD, ...ZERO, ...CD, ...ZERO]);
    const ssids = (one: Dump) => one.streams[0]?.cds?.map(({ ssid }) => ssid);
    expect(
      ssids(
        dump(
          memory([
            [base, at(0n, 2n)],
            [0x90000000n, three],
          ]),
          pasid,
        ),
      ),
    ).toEqual([0, 2]);

    const leaf = bytesOf([...CD, ...Array(63 * 8).fill(0n)]);
    const l1 = bytesOf([0n, 0x91000001n]);
    const two = dump(
      memory([
        [base, at(1n, 7n)],
        [0x90000000n, l1],
        [0x91000000n, leaf],
      ]),
      pasid,
    );
    expect(ssids(two)).toEqual([64]);
    expect(two.problems).toEqual([]);
  });

  test('a CD outside the images is a problem of its stream', () => {
    const found = dump(memory([[base, bytesOf(STE(0x90000000n))]]), linear(0));
    expect(found.streams).toMatchObject([{ sid: 0, cds: [] }]);
    expect(found.problems).toMatchObject([{ rule: 'DUMP-CDTAB', sid: 0 }]);
  });

  test('an illegal STE and an illegal CD are problems of their stream', () => {
    const ste = STE(0x90000000n);
    const cd = [0x5e204c0003501n, ...CD.slice(1)];
    const found = dump(
      memory([
        [base, bytesOf([ste[0] ?? 0n, 0x1800000d6n | (1n << 27n), ...ste.slice(2)])],
        [0x90000000n, bytesOf(cd)],
      ]),
      linear(0),
    );
    expect(found.problems.some(({ rule, sid }) => rule === 'STE-S13' && sid === 0)).toBe(true);
    expect(found.problems.some(({ message, sid, ssid }) => message.includes('T0SZ') && sid === 0 && ssid === 0)).toBe(
      true,
    );
  });

  test('without STRTAB_BASE there is nothing to look at', () => {
    expect(() => dump(memory([]), registers({ STRTAB_BASE_CFG: 0n }))).toThrow(/^no value of STRTAB_BASE;/);
  });
});

describe('images', () => {
  test('an STE that one image begins and the next one ends is read as one', () => {
    const bytes = bytesOf([...ZERO, ...STE(0x44a17000n)]);
    const split = memory([
      [0x40000000n, bytes.subarray(0, 72)],
      [0x40000048n, bytes.subarray(72)],
      [0x44a17000n, bytesOf(CD)],
    ]);
    const found = dump(split, registers({ STRTAB_BASE: 0x40000000n, STRTAB_BASE_CFG: 1n }));
    expect(found.problems).toEqual([]);
    expect(found.streams.map(({ sid, words }) => [sid, words[0]])).toEqual([[1, '0x44a1700b']]);
  });

  test('registers of a manifest go by their names in any case, and with the prefix of a driver', () => {
    const path = join(scratch, 'names.json');
    const named = { strtab_base: '0X40000000', ARM_SMMU_STRTAB_BASE_CFG: 1, SMMU_IDR0: { value: '0xd44101a' } };
    writeFileSync(path, JSON.stringify({ registers: named, dumps: [] }));
    expect([...(readManifest(path).phases[0]?.registers ?? [])]).toEqual([
      ['STRTAB_BASE', 0x40000000n],
      ['STRTAB_BASE_CFG', 1n],
      ['IDR0', 0xd44101an],
    ]);
  });

  test('two images may share bytes that agree', () => {
    const both = memory([
      [0n, Uint8Array.of(1, 2, 3, 4)],
      [2n, Uint8Array.of(3, 4, 5, 6)],
    ]);
    expect(both.read(0n, 6)).toEqual(Uint8Array.of(1, 2, 3, 4, 5, 6));
    expect(both.read(5n, 2)).toBeUndefined();
  });

  test('two images with different bytes at one address are refused, with the address', () => {
    expect(() =>
      memory([
        [0n, Uint8Array.of(1, 2, 3, 4)],
        [2n, Uint8Array.of(3, 9)],
      ]),
    ).toThrow('image at 0x2 and image at 0x0 both hold address 0x3, with different bytes');
  });

  test('images read back as one array would', () => {
    const piece = fc.record({ at: fc.nat(60), length: fc.integer({ min: 1, max: 20 }) });
    fc.assert(
      fc.property(
        fc.array(piece, { maxLength: 8 }),
        fc.nat(70),
        fc.integer({ min: 1, max: 20 }),
        (pieces, at, length) => {
          const model = new Map<number, number>();
          const images = memory(
            pieces.map(({ at, length }) => {
              const bytes = Uint8Array.from({ length }, (_, i) => (at + i) * 7);
              for (const [i, byte] of bytes.entries()) model.set(at + i, byte);
              return [BigInt(at), bytes] as const;
            }),
          );
          const wanted = Array.from({ length }, (_, i) => model.get(at + i));
          const got = images.read(BigInt(at), length);
          expect(got === undefined ? undefined : [...got]).toEqual(wanted.includes(undefined) ? undefined : wanted);
        },
      ),
    );
  });
});

describe('bad manifests [issue 2, bad input]', () => {
  const write = (name: string, data: unknown): string => {
    const path = join(scratch, name);
    writeFileSync(path, typeof data === 'string' ? data : JSON.stringify(data));
    return path;
  };
  writeFileSync(join(scratch, 'image.bin'), new Uint8Array(64));
  writeFileSync(join(scratch, 'other.bin'), new Uint8Array(64).fill(1));
  const image = (file: string, gpa = '0x1000', length = 64) => ({ what: 'x', gpa, length, file });
  const load = (path: string): void => {
    const manifest = readManifest(path);
    for (const phase of manifest.phases) memoryOf(manifest, phase);
  };
  const refused = (data: unknown, message: RegExp): void => {
    const path = write('manifest.json', data);
    expect(() => load(path)).toThrow(InputError);
    expect(() => load(path)).toThrow(message);
  };

  test('an image that is missing', () => {
    refused(
      { phases: [{ phase: 'one', dumps: [image('gone.bin')] }] },
      /manifest\.json: phase one: .*gone\.bin: there is no such file/,
    );
  });

  test('an image that is short, or long', () => {
    refused({ dumps: [image('image.bin', '0x1000', 128)] }, /image\.bin has 64 bytes, the manifest says 128/);
    refused({ dumps: [image('image.bin', '0x1000', 32)] }, /image\.bin has 64 bytes, the manifest says 32/);
  });

  test('images of one phase that overlap with different bytes; equal bytes are fine', () => {
    refused(
      { dumps: [image('image.bin'), image('other.bin', '0x1020')] },
      /other\.bin and image\.bin both hold address 0x1020, with different bytes/,
    );
    expect(() => load(write('ok.json', { dumps: [image('image.bin'), image('image.bin', '0x1020')] }))).not.toThrow();
  });

  test('different phases may disagree', () => {
    const phases = [
      { phase: 'a', dumps: [image('image.bin')] },
      { phase: 'b', dumps: [image('other.bin')] },
    ];
    expect(() => load(write('ok.json', { phases }))).not.toThrow();
  });

  test('what is no manifest says where', () => {
    refused('{', /manifest\.json: not JSON/);
    refused([], /manifest\.json: /);
    refused({}, /neither phases nor dumps/);
    refused({ dumps: [image('image.bin', 'high')] }, /manifest\.json: dumps\.0\.gpa: .*is not a number/);
    refused({ dumps: [image('image.bin', '0x10000000000000000')] }, /dumps\.0\.gpa: does not fit 64 bits/);
    expect(() => readManifest(join(scratch, 'none.json'))).toThrow(/none\.json: there is no such file/);
  });

  test('a gzip file that unpacks to more than the manifest says is not unpacked further', () => {
    writeFileSync(join(scratch, 'bomb.bin.gz'), gzipSync(new Uint8Array(1 << 20)));
    refused({ dumps: [image('bomb.bin.gz')] }, /bomb\.bin\.gz: it unpacks to more bytes than it may/);
    writeFileSync(join(scratch, 'broken.bin.gz'), gzipSync(new Uint8Array(64)).subarray(0, 20));
    refused({ dumps: [image('broken.bin.gz')] }, /broken\.bin\.gz: /);
  });

  test('a page that ends beyond its file', () => {
    const pages = [{ gpa: '0x1000', bytes: 64, file_offset: 32 }];
    refused({ dumps: [{ ...image('image.bin'), pages }] }, /page 0x1000 ends at byte 96 of 64/);
  });
});

test('mutated real tables are dumped, never a crash', () => {
  const [phase] = MANIFEST.phases;
  if (phase === undefined) throw new Error('no phase');
  const images = phase.dumps
    .filter(({ what }) => what.startsWith('strtab') || what === 'cdtable')
    .map(({ gpa, file }) => [BigInt(gpa), new Uint8Array(gunzipSync(readFileSync(recorded(file))))] as const);
  const unique = [...new Map(images.map((one) => [one[0], one])).values()];
  const ids = Object.entries(phase.registers).map(([name, { value }]) => [name, BigInt(value)] as const);
  const mutation = fc.record({ image: fc.nat(unique.length - 1), at: fc.nat(16383), bit: fc.nat(7) });
  fc.assert(
    fc.property(
      fc.array(mutation, { maxLength: 40 }),
      fc.boolean(),
      fc.bigInt({ min: 0n, max: 0x3ffffn }),
      (mutations, keep, cfg) => {
        const copies = unique.map(([base, bytes]) => [base, bytes.slice()] as const);
        for (const { image, at, bit } of mutations) {
          const bytes = copies[image]?.[1];
          if (bytes !== undefined) bytes[at % bytes.length] = (bytes[at % bytes.length] ?? 0) ^ (1 << bit);
        }
        const found = dump(memory(copies), new Map(keep ? ids : [...ids, ['STRTAB_BASE_CFG', cfg]]));
        expect(JSON.parse(JSON.stringify(found))).toEqual(found);
      },
    ),
    { numRuns: 40 },
  );
});
