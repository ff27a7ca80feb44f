import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { capsOf } from '../../spec/caps.ts';
import type { Words } from '../../spec/layout.ts';
import { idRegistersOf } from '../../src/hw/config.ts';
import { PRESETS } from '../../src/hw/presets.ts';
import { type DecodeOptions, decode, READERS } from '../../src/inspect/decode.ts';
import { KINDS, type RecordKind } from '../../src/inspect/record.ts';
import { parseWords } from '../../src/inspect/words.ts';
import { isAbort, MANIFEST } from './recorded.ts';

const linux = capsOf(idRegistersOf(PRESETS.linuxNesting));
const qemu = capsOf(idRegistersOf(PRESETS.qemuVirt));
const small = capsOf(idRegistersOf(PRESETS.smallVmid));

const words = (kind: RecordKind, text: string): Words => {
  const [record] = parseWords(text, { bytes: READERS[kind].bytes, what: READERS[kind].what, width: 64 });
  if (record === undefined) throw new Error('no record');
  return record;
};

const read = (kind: RecordKind, text: string, options?: DecodeOptions) => {
  const record = decode(kind, words(kind, text), options);
  const field = (name: string) => record.fields.find((one) => one.name === name);
  return { ...record, field };
};

// A nested STE: CD table at 0x44a1700 << 6 of 2^4 CDs, VMID 3, 40-bit IPA from level 1, table at 0x80000000.
const NESTED = `0x200000044a1700f 0xd6 0x0008000000000003 0x80000000 0 0 0 0`;

describe('decode ste [issue 2 item 6, IHI 0070 5.2]', () => {
  const ste = read('ste', '0x44a1700b 0xd6 0 0 0 0 0 0', { caps: qemu });

  test('fields carry absolute bits, their own value, and a meaning', () => {
    expect(ste.field('Config')).toMatchObject({ bits: '3:1', value: '0x5' });
    expect(ste.field('Config')?.meaning).toMatch(/^S1_TRANS/);
    expect(ste.field('V')).toMatchObject({ bits: '0:0', value: '0x1' });
    expect(ste.field('S1ContextPtr')).toMatchObject({ bits: '55:6', value: '0x11285c0', meaning: '0x44a17000' });
    expect(ste.field('S1CSH')).toMatchObject({ bits: '71:70', value: '0x3' });
  });

  test('it is valid and legal, and says what it does', () => {
    expect(ste).toMatchObject({ kind: 'ste', valid: true, problems: [] });
    expect(ste.summary).toBe('S1_TRANS, CD at 0x44a17000');
  });

  test('fields that this Config ignores are marked, others are not', () => {
    expect(ste.field('S2TTB')?.ignored).toBe(true);
    expect(ste.field('S2T0SZ')?.ignored).toBe(true);
    expect(ste.field('S1ContextPtr')).not.toHaveProperty('ignored');
    expect(read('ste', '0x9 0 0 0 0 0 0 0').field('S1ContextPtr')?.ignored).toBe(true);
  });

  test('reserved bits appear only when they are set, and are no problem', () => {
    expect(ste.field('RES0_58_56')).toBeUndefined();
    const odd = read('ste', '0x010000000000000b 0xd6 0 0 0 0 0 0', { caps: linux });
    expect(odd.field('RES0_58_56')).toMatchObject({ bits: '58:56', value: '0x1', meaning: 'reserved, RES0' });
    expect(odd.problems).toEqual([]);
  });

  test('sizes are in words', () => {
    const nested = read('ste', '0x44a1700f 0xd6 0x0009056800000003 0x80000000 0 0 0 0', { caps: linux });
    expect(nested.field('S2T0SZ')).toMatchObject({ bits: '165:160', value: '0x28', meaning: '24-bit input' });
    expect(nested.field('S2VMID')).toMatchObject({ bits: '143:128', value: '0x3', meaning: 'VMID 3' });
    expect(nested.field('S2PS')?.meaning).toMatch(/^36-bit output/);
    expect(nested.field('S2TTB')?.meaning).toContain('0x80000000');
  });

  test('a field whose feature is unknown says what it needs; known and present, it does not', () => {
    expect(read('ste', NESTED).field('S2FWB')?.meaning).toContain('needs IDR3.FWB');
    expect(read('ste', NESTED, { caps: linux }).field('S2FWB')?.meaning).not.toContain('needs');
    expect(read('ste', NESTED, { caps: qemu }).field('S2FWB')?.meaning).toContain('needs IDR3.FWB');
  });

  test('V=0 is no problem, whatever else is set, and everything else is ignored', () => {
    const invalid = read('ste', `0xfffffffffffffffe ${Array(7).fill('0xffffffffffffffff').join(' ')}`, { caps: linux });
    expect(invalid).toMatchObject({ valid: false, problems: [], summary: 'invalid' });
    expect(invalid.fields.filter(({ name }) => name !== 'V').every(({ ignored }) => ignored === true)).toBe(true);
  });

  test('a VMID above 8 bits is illegal where IDR0.VMID16 says 8 [5.2 S2VMID], and unknown otherwise', () => {
    const wide = '0x44a1700d 0x0 0x000d056800000103 0x80000000 0 0 0 0';
    const rules = (options?: DecodeOptions) => read('ste', wide, options).problems.map(({ rule }) => rule);
    expect(rules({ caps: small })).toContain('STE-S31');
    expect(rules({ caps: linux })).not.toContain('STE-S31');
    expect(rules()).not.toContain('STE-S31');
  });

  test('a problem names rule, section and a sentence', () => {
    // Config=S1_TRANS with STRW=EL3: ILLEGAL in every Non-secure STE (5.2 STRW).
    const [problem] = read('ste', '0xb 0x40000000 0 0 0 0 0 0', { caps: linux }).problems;
    expect(problem).toMatchObject({ rule: 'STE-S11' });
    expect(problem?.section).toMatch(/^5\.2/);
    expect(problem?.message).toContain('STRW (bits 95:94) = 1');
  });
});

describe('decode cd [IHI 0070 5.4]', () => {
  const cd = read('cd', '0x1e204c0003510 0x44a16000 0x0 0xfffffffff404ff44 0 0 0 0', { caps: qemu });

  test('the recorded CD of Linux: ASID 1, 48-bit input, TTB0, memory attributes in words', () => {
    expect(cd).toMatchObject({ kind: 'cd', valid: true, problems: [] });
    expect(cd.field('ASID')).toMatchObject({ bits: '63:48', value: '0x1' });
    expect(cd.field('T0SZ')).toMatchObject({ bits: '5:0', value: '0x10', meaning: '48-bit input' });
    expect(cd.field('TTB0')).toMatchObject({ bits: '119:68', meaning: '0x44a16000' });
    expect(cd.field('MAIR0')?.meaning).toBe(
      '0: Normal NC; 1: Normal WB RA WA; 2: Device-nGnRE; 3: Normal outer WB RA WA, inner NC',
    );
  });

  test('a half with EPD=1 is ignored [5.4 EPD0]', () => {
    expect(cd.field('EPD1')?.value).toBe('0x1');
    expect(cd.field('TTB1')?.ignored).toBe(true);
    expect(cd.field('TTB0')).not.toHaveProperty('ignored');
  });

  test('V=0 is no problem', () => {
    expect(read('cd', '0x3f 0 0 0 0 0 0 0', { caps: qemu })).toMatchObject({ valid: false, problems: [] });
  });

  test('T0SZ out of range is illegal [5.4 T0SZ]', () => {
    const { problems } = read('cd', '0x1e204c0003501 0x44a16000 0 0 0 0 0 0', { caps: qemu });
    expect(problems.some(({ message }) => message.includes('T0SZ (bits 5:0) = 1'))).toBe(true);
  });
});

describe('decode of level 1 descriptors [IHI 0070 5.1, 5.3]', () => {
  test('an L1STD names its array', () => {
    const l1 = read('l1std', '0x5be20009');
    expect(l1).toMatchObject({ valid: true, problems: [], summary: '256 STEs at 0x5be20000' });
    expect(l1.field('Span')).toMatchObject({ bits: '4:0', value: '0x9', meaning: '256 STEs' });
    expect(l1.field('L2Ptr')?.meaning).toBe('0x5be20000');
  });

  test('a reserved Span is a problem, Span 0 is none', () => {
    expect(read('l1std', '0x5be2000c').problems).toMatchObject([{ rule: 'L1STD-SPAN' }]);
    expect(read('l1std', '0x0').problems).toEqual([]);
  });

  test('an L1CD is valid by its V', () => {
    expect(read('l1cd', '0x80001001')).toMatchObject({ valid: true, summary: 'leaf table at 0x80001000' });
    expect(read('l1cd', '0x80001000')).toMatchObject({ valid: false, problems: [] });
  });
});

// Words from reference tables of the commands and events, not from this code's encoder.
describe('decode cmd [IHI 0070 chapter 4]', () => {
  test.each([
    ['0x0000010800000003 0x1', 'CMD_CFGI_STE', 'drop the STE and CDs of StreamID 0x108'],
    ['0x0000010000000004 0x7', 'CMD_CFGI_STE_RANGE', 'drop the configuration of StreamID 0x100 to 0x1ff'],
    ['0x4 0x1f', 'CMD_CFGI_ALL', 'drop all cached configuration'],
    ['0x0000010800005005 0x1', 'CMD_CFGI_CD', 'drop CD 0x5 of StreamID 0x108'],
    ['0x0034001200000011 0x0', 'CMD_TLBI_NH_ASID', 'drop non-global stage 1 of an ASID (VMID 18, ASID 52)'],
    ['0x0000010800000040 0x34', 'CMD_ATC_INV', 'ask the device behind StreamID 0x108 to drop all addresses'],
    ['0x0000010800000041 0x2009', 'CMD_PRI_RESP', 'answer page request group 9 of StreamID 0x108: Success'],
    ['0x0000010800001044 0x7', 'CMD_RESUME', 'retry the transaction of StreamID 0x108 stalled with STAG 0x7'],
    ['0x000000000FC02046 0x0', 'CMD_SYNC', 'wait for earlier commands, then SIG_SEV'],
  ])('%s is %s', (text, name, summary) => {
    expect(read('cmd', text)).toMatchObject({ name, valid: true, problems: [], summary: `${name}: ${summary}` });
  });

  test('a ranged TLBI says which addresses [4.4.1.1]', () => {
    const tlbi = read('cmd', '0x0034001200400012 0x0000400012345701');
    expect(tlbi.summary).toContain('0x400012345000 to 0x400012354fff (64 KB), last level only');
    expect(tlbi.field('TG')).toMatchObject({ bits: '75:74', value: '0x1' });
    expect(tlbi.field('Address')?.meaning).toBe('0x400012345000');
  });

  test('a reserved opcode is CERROR_ILL everywhere, an absent feature only where it is absent [4.1.3]', () => {
    expect(read('cmd', '0xff 0').problems).toMatchObject([{ rule: 'CMD-OPCODE', section: '4.1.3' }]);
    expect(read('cmd', '0x0000010800000040 0x34', { caps: qemu }).problems).toMatchObject([{ rule: 'CMD-FEATURE' }]);
  });

  test('CMD_SYNC with the reserved CS is illegal [4.7.3]', () => {
    expect(read('cmd', '0x3046 0').problems).toMatchObject([{ rule: 'CMD-SYNC-CS' }]);
  });
});

describe('decode event [IHI 0070 7.3]', () => {
  test('a stalled stage 1 translation fault in a sentence', () => {
    const event = read('event', '0x0000010800005810 0x0000020880000007 0x0000400012345000 0x0');
    expect(event).toMatchObject({ name: 'F_TRANSLATION', valid: true });
    expect(event.summary).toBe(
      'F_TRANSLATION: StreamID 0x108, SubstreamID 0x5: unprivileged read of 0x400012345000 has no translation at stage 1; stalled, STAG 0x7',
    );
    expect(event.field('InputAddr')).toMatchObject({ bits: '191:128', meaning: '0x400012345000' });
    expect(event.field('CLASS')?.meaning).toMatch(/^IN/);
  });

  test('a stage 2 fault on a table fetch names the IPA', () => {
    const { summary } = read('event', '0x0000010800000010 0x0000018000000000 0x0000400012345000 0x0000000087654000');
    expect(summary).toContain('unprivileged write of 0x400012345000');
    expect(summary).toContain('at stage 2 of IPA 0x87654000, while fetching a stage 1 table entry');
  });

  test('a fetch that was aborted names where', () => {
    expect(read('event', '0x0000010800000003 0 0 0x90000040').summary).toBe(
      'F_STE_FETCH: StreamID 0x108: STE or L1STD fetch aborted at 0x90000040',
    );
  });

  test('a number of no known meaning is said so', () => {
    expect(read('event', '0x77 0 0 0')).toMatchObject({ name: 'reserved event', valid: true, problems: [] });
    expect(read('event', '0xe1 0 0 0')).toMatchObject({ name: 'implementation defined event' });
  });
});

describe('decode pte1, pte2 [DDI 0487 D8.3]', () => {
  test('a stage 1 page of the recorded tables', () => {
    const pte = read('pte1', '0x0060000080302f03');
    expect(pte).toMatchObject({ name: 'S1 4k L3 page', valid: true, problems: [] });
    expect(pte.field('OutputAddress')).toMatchObject({ bits: '47:12', meaning: '0x80302000' });
    expect(pte.field('AP')?.meaning).toMatch(/^PRIV_RW/);
  });

  test('the same bits are a table at level 2', () => {
    const pte = read('pte1', '0x80302003', { level: 2 });
    expect(pte).toMatchObject({ name: 'S1 4k L2 table', summary: 'table at 0x80302000' });
  });

  test('an address split by DS=1 joins its parts by a comma [2.3]', () => {
    const pte = read('pte1', '0x0000000080302103', { ds: true });
    expect(pte.field('OutputAddress')).toMatchObject({ bits: '9:8,49:12', meaning: '0x4000080302000' });
  });

  test('a stage 2 block with S2AP', () => {
    const pte = read('pte2', '0x00400000802007fd', { level: 2 });
    expect(pte.field('S2AP')?.meaning).toMatch(/^RW/);
    expect(pte.summary).toBe('0x80200000 to 0x803fffff, RW');
  });

  test('invalid is no problem; a reserved encoding is one [2.2]', () => {
    expect(read('pte1', '0xfffffffffffffffe')).toMatchObject({ valid: false, problems: [] });
    expect(read('pte1', '0x80302001')).toMatchObject({ valid: true, problems: [{ rule: 'PTE-TYPE' }] });
  });

  test('a level that the granule does not have is refused', () => {
    expect(() => read('pte1', '0x3', { granule: '64k', level: 0 })).toThrow('64k granule has no level 0');
  });
});

test('the recorded STEs and CDs are legal on the recorded SMMU, and say what the recorder read', () => {
  for (const { phase, registers, streams } of MANIFEST.phases) {
    const id = (name: string) => Number(registers[name]?.value);
    const caps = capsOf({ IDR0: id('IDR0'), IDR1: id('IDR1'), IDR3: id('IDR3'), IDR5: id('IDR5'), AIDR: id('AIDR') });
    for (const { sid, ste, config, cds } of streams) {
      const entry = read('ste', ste.join(' '), { caps });
      expect(entry.problems, `${phase} ${sid}`).toEqual([]);
      expect(entry.field('Config')?.value).toBe(`0x${config.toString(16)}`);
      if (isAbort(ste)) continue;
      for (const { cd, asid, t0sz, ttb0 } of cds ?? []) {
        const context = read('cd', cd.join(' '), { caps });
        expect(context.problems, `${phase} ${sid}`).toEqual([]);
        expect(context.field('ASID')?.value).toBe(`0x${asid.toString(16)}`);
        expect(context.field('T0SZ')?.value).toBe(`0x${t0sz.toString(16)}`);
        expect(context.field('TTB0')?.meaning).toBe(ttb0);
      }
    }
  }
});

test('every record of random words is decoded, its fields being its bits', () => {
  const arbitrary = fc.record({
    kind: fc.constantFrom(...KINDS),
    bytes: fc.uint8Array({ minLength: 64, maxLength: 64 }),
    caps: fc.constantFrom(undefined, qemu, linux, small),
    granule: fc.constantFrom('4k', '16k', '64k'),
    level: fc.constantFrom(1, 2, 3),
  });
  fc.assert(
    fc.property(arbitrary, ({ kind, bytes, ...options }) => {
      const record = new Uint32Array(bytes.slice(0, READERS[kind].bytes).buffer);
      const decoded = decode(kind, record, options as DecodeOptions);
      const all = BigInt(
        `0x${[...bytes.slice(0, READERS[kind].bytes)]
          .toReversed()
          .map((b) => b.toString(16).padStart(2, '0'))
          .join('')}`,
      );
      for (const { bits, value } of decoded.fields) {
        let joined = 0n;
        for (const part of bits.split(',')) {
          const [hi = 0, lo = 0] = part.split(':').map(Number);
          const width = BigInt(hi - lo + 1);
          joined = (joined << width) | ((all >> BigInt(lo)) & ((1n << width) - 1n));
        }
        expect(BigInt(value)).toBe(joined);
      }
    }),
    { numRuns: 500 },
  );
});
