/** What the TLB keeps, under which tags, and what each invalidation takes away. */
import { describe, expect, test } from 'vitest';
import * as commands from '../../spec/commands.ts';
import { DEFAULT_TLB, Tlb, type TlbOptions } from '../../src/hw/tlb.ts';
import { TlbArray } from '../../src/hw/tlb-array.ts';
import { ipaOf, Lab, labCaps, RAM, RAM_SIZE } from './translation-lab.ts';

const NH_ALL = commands.CMD_TLBI_NH_ALL.opcode;
const NH_ASID = commands.CMD_TLBI_NH_ASID.opcode;
const NH_VA = commands.CMD_TLBI_NH_VA.opcode;
const NH_VAA = commands.CMD_TLBI_NH_VAA.opcode;
const S2_IPA = commands.CMD_TLBI_S2_IPA.opcode;
const S12_VMALL = commands.CMD_TLBI_S12_VMALL.opcode;
const NSNH_ALL = commands.CMD_TLBI_NSNH_ALL.opcode;
const EL2_ALL = commands.CMD_TLBI_EL2_ALL.opcode;
const EL2_ASID = commands.CMD_TLBI_EL2_ASID.opcode;
const EL2_VA = commands.CMD_TLBI_EL2_VA.opcode;
const EL2_VAA = commands.CMD_TLBI_EL2_VAA.opcode;

const VA = 0x1234_5000n;
const OTHER_VA = 0x4321_0000_0000n;
const IPA = 0x8765_4000n;

/** Whether an access is answered by the TLB. */
function isHit(lab: Lab, sid: number, va: bigint): boolean {
  lab.go(sid, va);
  return lab.t.tlbHit;
}

/**
 * One entry of each kind of the matrix: V and G (VMID 1, ASID 1), C and its T1 (VMID 2, ASID 1), I and T2 (VMID 3),
 * E (NS-EL2) and H (NS-EL2-E2H, ASID 1).
 */
function everyKind() {
  const lab = new Lab();
  const page = lab.pages();
  const flat = lab.pages();
  for (let at = RAM; at < RAM + RAM_SIZE; at += 0x20_0000n) lab.map(2, flat, ipaOf(at), at, {}, { level: 2 });
  const s1 = lab.pages();
  lab.map(1, s1, VA, page, { nG: 1 });
  lab.map(1, s1, OTHER_VA, page, { nG: 0 });
  const nested = lab.pages();
  lab.map(1, nested, VA, ipaOf(page), {}, { ipaOf });
  const only2 = lab.pages();
  lab.map(2, only2, IPA, page);
  const cd = lab.cd({ TTB0: s1 >> 4n });
  lab.ste(1, { Config: 'S1_TRANS', S1ContextPtr: cd >> 6n, S2VMID: 1 });
  const deep = lab.cd({ TTB0: ipaOf(nested) >> 4n });
  lab.ste(2, { Config: 'NESTED', S1ContextPtr: ipaOf(deep) >> 6n, ...lab.s2(flat, 2) });
  lab.ste(3, { Config: 'S2_TRANS', ...lab.s2(only2, 3) });
  lab.ste(4, { Config: 'S1_TRANS', S1ContextPtr: cd >> 6n, STRW: 'EL2' });
  lab.ste(5, { Config: 'S1_TRANS', S1ContextPtr: cd >> 6n, STRW: 'EL2' });
  const fill = (): void => {
    lab.go(1, VA);
    lab.go(1, OTHER_VA);
    lab.go(2, VA);
    lab.go(3, IPA);
    lab.go(4, VA);
    lab.regs.E2H = true;
    lab.go(5, VA);
    lab.regs.E2H = false;
  };
  fill();
  const hit = (sid: number, va: bigint): boolean => {
    lab.regs.E2H = sid === 5;
    lab.go(sid, va);
    lab.regs.E2H = false;
    return lab.t.tlbHit;
  };
  /** Kinds that are still there. Looking refills, so a case looks once. */
  const left = (): string => {
    const held = [...lab.smmu.tlb.holdings()];
    const has = (what: (h: (typeof held)[number]) => boolean, name: string): string => (held.some(what) ? name : '-');
    return [
      has((h) => h.cache === 'va' && h.VMID === 1 && h.ASID === 1, 'V'),
      has((h) => h.cache === 'va' && h.VMID === 1 && h.ASID === -1, 'G'),
      has((h) => h.cache === 'va' && h.VMID === 2 && h.combined, 'C'),
      has((h) => h.cache === 's1Tables' && h.VMID === 2, 'T'),
      has((h) => h.cache === 'ipa' && h.VMID === 3, 'I'),
      has((h) => h.cache === 's2Tables' && h.VMID === 3, 'S'),
      has((h) => h.world === 2 && h.cache === 'va', 'E'),
      has((h) => h.world === 3 && h.cache === 'va', 'H'),
    ].join('');
  };
  return { lab, left, hit };
}

describe('what each command drops [4.4, 3.17]', () => {
  const cases: readonly [string, number, Parameters<Lab['tlbi']>[1], string][] = [
    ['NH_ALL of VMID 1', NH_ALL, { VMID: 1 }, '--CTISEH'],
    ['NH_ALL of VMID 2', NH_ALL, { VMID: 2 }, 'VG--ISEH'],
    ['NH_ALL of another VMID', NH_ALL, { VMID: 9 }, 'VGCTISEH'],
    ['NH_ASID leaves global entries', NH_ASID, { VMID: 1, ASID: 1 }, '-GCTISEH'],
    ['NH_ASID of another ASID', NH_ASID, { VMID: 1, ASID: 2 }, 'VGCTISEH'],
    ['NH_ASID takes combined entries and tables', NH_ASID, { VMID: 2, ASID: 1 }, 'VG--ISEH'],
    ['NH_VA', NH_VA, { VMID: 1, ASID: 1, address: VA + 0x123n }, '-GCTISEH'],
    ['NH_VA of another ASID', NH_VA, { VMID: 1, ASID: 2, address: VA }, 'VGCTISEH'],
    ['NH_VA takes a global entry whatever the ASID', NH_VA, { VMID: 1, ASID: 2, address: OTHER_VA }, 'V-CTISEH'],
    ['NH_VA, Leaf=1 leaves tables', NH_VA, { VMID: 2, ASID: 1, address: VA, Leaf: true }, 'VG-TISEH'],
    ['NH_VA, Leaf=0 takes tables', NH_VA, { VMID: 2, ASID: 1, address: VA }, 'VG--ISEH'],
    ['NH_VAA any ASID', NH_VAA, { VMID: 2, address: VA, Leaf: true }, 'VG-TISEH'],
    ['NH_VAA of another page', NH_VAA, { VMID: 2, address: VA + 0x1000n, Leaf: true }, 'VGCTISEH'],
    ['S2_IPA, Leaf=1', S2_IPA, { VMID: 3, address: IPA, Leaf: true }, 'VGCT-SEH'],
    ['S2_IPA, Leaf=0', S2_IPA, { VMID: 3, address: IPA }, 'VGCT--EH'],
    ['S2_IPA leaves stage 1 and combined entries', S2_IPA, { VMID: 2, address: ipaOf(RAM) }, 'VGCTISEH'],
    ['S12_VMALL', S12_VMALL, { VMID: 3 }, 'VGCT--EH'],
    ['S12_VMALL takes combined entries', S12_VMALL, { VMID: 2 }, 'VG--ISEH'],
    ['NSNH_ALL', NSNH_ALL, {}, '------EH'],
    ['EL2_ALL', EL2_ALL, {}, 'VGCTIS--'],
    ['EL2_ASID takes E2H entries only', EL2_ASID, { ASID: 1 }, 'VGCTISE-'],
    ['EL2_VA with E2H=0: EL2 entries, ASID not looked at', EL2_VA, { ASID: 9, address: VA }, 'VGCTIS-H'],
    ['EL2_VAA with E2H=0', EL2_VAA, { address: VA }, 'VGCTIS-H'],
  ];
  for (const [name, opcode, fields, expected] of cases)
    test(name, () => {
      const { lab, left } = everyKind();
      expect(left()).toBe('VGCTISEH');
      lab.tlbi(opcode, fields);
      expect(left()).toBe(expected);
    });

  test('EL2_VA and EL2_VAA with CR2.E2H=1 act on E2H entries, EL2_VA by ASID', () => {
    for (const [opcode, ASID, expected] of [
      [EL2_VA, 1, 'VGCTISE-'],
      [EL2_VA, 2, 'VGCTISEH'],
      [EL2_VAA, 2, 'VGCTISE-'],
    ] as const) {
      const { lab, left } = everyKind();
      lab.regs.E2H = true;
      lab.tlbi(opcode, { ASID, address: VA });
      expect(left()).toBe(expected);
    }
  });

  test('what is shown as gone misses, what is shown as left hits', () => {
    const { lab, hit } = everyKind();
    lab.tlbi(NH_ASID, { VMID: 1, ASID: 1 });
    expect([hit(1, OTHER_VA), hit(1, VA), hit(2, VA), hit(3, IPA), hit(4, VA), hit(5, VA)]).toEqual([
      true,
      false,
      true,
      true,
      true,
      true,
    ]);
  });

  test('VMW: invalidation ignores the low bits of a VMID, look-ups do not [3.17.6]', () => {
    const { lab, left } = everyKind();
    lab.regs.VMW = 1;
    lab.tlbi(S12_VMALL, { VMID: 3 });
    expect(left()).toBe('VG----EH');
    lab.regs.VMW = 2;
    lab.tlbi(NH_ALL, { VMID: 0 });
    expect(left()).toBe('------EH');
  });

  test('a broadcast by ASID or VA spares entries with ASET=1, a command does not [3.17]', () => {
    const lab = new Lab();
    const root = lab.pages();
    lab.map(1, root, VA, RAM);
    for (const ASET of [0, 1] as const)
      lab.ste(ASET + 1, { Config: 'S1_TRANS', S1ContextPtr: lab.cd({ TTB0: root >> 4n, ASET, ASID: 3 }) >> 6n });
    const fill = (): void => {
      lab.go(1, VA);
      lab.go(2, VA);
    };
    const hits = (): boolean[] => [1, 2].map((sid) => isHit(lab, sid, VA));
    for (const [opcode, fields] of [
      [NH_ASID, { ASID: 3 }],
      [NH_VA, { ASID: 3, address: VA }],
      [NH_VAA, { address: VA }],
    ] as const) {
      fill();
      lab.tlbi(opcode, { ...fields, broadcast: true });
      expect(hits()).toEqual([false, true]);
      lab.tlbi(opcode, fields);
      expect(hits()).toEqual([false, false]);
    }
    fill();
    lab.tlbi(NH_ALL, { broadcast: true });
    expect(hits()).toEqual([false, false]);
  });
});

describe('ranges, TG and TTL [4.4.1]', () => {
  const page4k = { TG: 1 } as const;
  function mapped() {
    const lab = new Lab();
    const root = lab.pages();
    for (let i = 0n; i < 8n; i++) lab.map(1, root, VA + i * 0x1000n, RAM + i * 0x1000n);
    lab.map(1, root, 0x8000_0000n, RAM, {}, { level: 2 });
    lab.ste(1, { Config: 'S1_TRANS', S1ContextPtr: lab.cd({ TTB0: root >> 4n }) >> 6n });
    for (let i = 0n; i < 8n; i++) lab.go(1, VA + i * 0x1000n);
    lab.go(1, 0x8000_0000n);
    const leaves = (): number[] =>
      [...lab.smmu.tlb.holdings()].filter((h) => h.cache === 'va').map((h) => Number((h.address - VA) >> 12n));
    return { lab, pages: () => leaves().filter((n) => n >= 0 && n < 8), block: () => leaves().some((n) => n > 8) };
  }

  test('(NUM+1) * 2^SCALE granules go, no others', () => {
    const { lab, pages } = mapped();
    lab.tlbi(NH_VA, { ASID: 1, address: VA + 0x2000n, ...page4k, NUM: 2, SCALE: 0, Leaf: true });
    expect(pages().sort()).toEqual([0, 1, 5, 6, 7]);
    lab.tlbi(NH_VA, { ASID: 1, address: VA + 0x6000n, ...page4k, NUM: 0, SCALE: 1, Leaf: true });
    expect(pages().sort()).toEqual([0, 1, 5]);
  });

  test('a range larger than the TLB takes everything inside it', () => {
    const { lab, pages, block } = mapped();
    lab.tlbi(NH_VAA, { address: 0n, ...page4k, NUM: 31, SCALE: 20 });
    expect([pages(), block()]).toEqual([[], false]);
  });

  test('TG names the granule: entries of another one stay', () => {
    const { lab, pages } = mapped();
    lab.tlbi(NH_VA, { ASID: 1, address: 0n, TG: 3, NUM: 31, SCALE: 16 });
    expect(pages().length).toBe(8);
  });

  test('TTL names the level of the leaf; TG=0 ignores NUM and TTL', () => {
    const { lab, pages, block } = mapped();
    lab.tlbi(NH_VA, { ASID: 1, address: 0x8000_0000n, ...page4k, TTL: 3, NUM: 0 });
    expect(block()).toBe(true);
    lab.tlbi(NH_VA, { ASID: 1, address: 0x8000_0000n, ...page4k, TTL: 2, NUM: 0 });
    expect(block()).toBe(false);
    lab.tlbi(NH_VA, { ASID: 1, address: VA, TTL: 2, NUM: 7, SCALE: 3 });
    expect(pages().sort()).toEqual([1, 2, 3, 4, 5, 6, 7]);
  });

  test('TTL with Leaf=0 takes tables above that level only', () => {
    const { lab } = mapped();
    const levels = (): number[] =>
      [...lab.smmu.tlb.holdings()].filter((h) => h.cache === 's1Tables' && h.address <= VA).map((h) => h.level);
    expect(new Set(levels())).toEqual(new Set([0, 1, 2]));
    lab.tlbi(NH_VA, { ASID: 1, address: VA, ...page4k, TTL: 2, NUM: 0 });
    expect(new Set(levels())).toEqual(new Set([2]));
  });

  test('an address anywhere in a block or contiguous run takes the whole entry', () => {
    const { lab, block } = mapped();
    lab.tlbi(NH_VA, { ASID: 1, address: 0x801f_f000n });
    expect(block()).toBe(false);
  });

  test('a stage 1 block in pieces by stage 2: any address of the block takes all pieces', () => {
    const lab = new Lab();
    const [s1, s2] = [lab.pages(), lab.pages()];
    lab.map(2, s2, ipaOf(RAM), RAM, {}, { level: 1 });
    for (let i = 0n; i < 4n; i++) lab.map(2, s2, 0x2000_0000n + i * 0x1000n, RAM + i * 0x1000n);
    lab.map(1, s1, 0x4000_0000n, 0x2000_0000n, {}, { level: 2, ipaOf });
    const cd = lab.cd({ TTB0: ipaOf(s1) >> 4n });
    lab.ste(1, { Config: 'NESTED', S1ContextPtr: ipaOf(cd) >> 6n, ...lab.s2(s2, 7) });
    const hits = (): boolean[] => [0n, 1n, 3n].map((i) => isHit(lab, 1, 0x4000_0000n + i * 0x1000n));
    hits();
    expect(hits()).toEqual([true, true, true]);
    expect(lab.t.sizeLog2).toBe(12);
    lab.tlbi(NH_VA, { VMID: 7, ASID: 1, address: 0x4010_0000n, Leaf: true });
    expect(hits()).toEqual([false, false, false]);
    lab.tlbi(NH_VA, { VMID: 7, ASID: 1, address: 0x4020_0000n, Leaf: true });
    expect(hits()).toEqual([true, true, true]);
    // By level: the leaf of stage 1 stands at level 2.
    lab.tlbi(NH_VA, { VMID: 7, ASID: 1, address: 0x4000_0000n, TG: 1, TTL: 3, Leaf: true });
    expect(hits()).toEqual([true, true, true]);
    lab.tlbi(NH_VA, { VMID: 7, ASID: 1, address: 0x4000_0000n, TG: 1, TTL: 2, Leaf: true });
    expect(hits()).toEqual([false, false, false]);
  });
});

describe('tags [3.17]', () => {
  test('two streams with equal VMID and ASID share entries; another ASID, VMID or world does not', () => {
    const lab = new Lab();
    const root = lab.pages();
    lab.map(1, root, VA, RAM);
    const stream = (sid: number, vmid: number, ASID: number): void =>
      lab.ste(sid, { Config: 'S1_TRANS', S1ContextPtr: lab.cd({ TTB0: root >> 4n, ASID }) >> 6n, S2VMID: vmid });
    stream(1, 5, 5);
    stream(2, 5, 5);
    stream(3, 5, 6);
    stream(4, 6, 5);
    lab.go(1, VA);
    expect([2, 3, 4].map((sid) => isHit(lab, sid, VA))).toEqual([true, false, false]);
    expect(lab.smmu.tlb.holdersOf(6).every((h) => h.VMID === 6)).toBe(true);
  });

  test('a global entry answers every ASID of its VMID and ASET, and no other [3.17.1]', () => {
    const lab = new Lab();
    const root = lab.pages();
    lab.map(1, root, VA, RAM, { nG: 0 });
    const stream = (sid: number, vmid: number, ASID: number, ASET: number): void =>
      lab.ste(sid, { Config: 'S1_TRANS', S1ContextPtr: lab.cd({ TTB0: root >> 4n, ASID, ASET }) >> 6n, S2VMID: vmid });
    stream(1, 5, 1, 0);
    stream(2, 5, 2, 0);
    stream(3, 5, 3, 1);
    stream(4, 6, 1, 0);
    lab.go(1, VA);
    expect([2, 3, 4].map((sid) => isHit(lab, sid, VA))).toEqual([true, false, false]);
  });

  test('a stale entry answers until it is invalidated: page, table and permission', () => {
    const { lab } = everyKind();
    const before = lab.go(1, VA);
    lab.memory.write64(0x4000_0000n + 64n, 0n);
    lab.memory.fill(0x4100_0000n, 0x10_0000, 0);
    expect(lab.go(1, VA)).toBe(before);
    lab.tlbi(NH_ASID, { VMID: 1, ASID: 1 });
    expect(lab.go(1, VA)).toBe('Abort event=0x10 S2=0');
  });

  test('without stage 2 there is no VMID tag [3.17]', () => {
    const lab = new Lab(labCaps({ S2P: 0, Hyp: 0, VMW: 0 }));
    const root = lab.pages();
    lab.map(1, root, VA, RAM);
    lab.ste(1, { Config: 'S1_TRANS', S1ContextPtr: lab.cd({ TTB0: root >> 4n }) >> 6n });
    lab.go(1, VA);
    expect(lab.t.VMID).toBe(-1);
    lab.tlbi(NH_VAA, { address: VA });
    lab.go(1, VA);
    expect(lab.t.tlbHit).toBe(false);
  });

  test('conflicting entries of two sizes: one of them is used, or F_TLB_CONFLICT [3.20.1]', () => {
    for (const [BBML, tlbConflict, expected] of [
      [1, 'use-one', /^0x/],
      [1, 'fault', /event=0x20/],
      [2, 'fault', /^0x/],
    ] as const) {
      const lab = new Lab(labCaps({}, {}, { BBML }), { choices: { tlbConflict } });
      const root = lab.pages();
      lab.map(1, root, 0x4000_0000n, RAM);
      lab.ste(1, { Config: 'S1_TRANS', S1ContextPtr: lab.cd({ TTB0: root >> 4n }) >> 6n });
      lab.go(1, 0x4000_0000n);
      lab.map(1, root, 0x4000_0000n, RAM, {}, { level: 2 });
      lab.tlbi(NH_VA, { ASID: 1, address: 0x4000_1000n });
      lab.go(1, 0x4000_1000n);
      expect(lab.go(1, 0x4000_0000n)).toMatch(expected);
    }
  });
});

test('a block with nT is used and not cached, at either stage [3.21.1.1]', () => {
  const lab = new Lab();
  const root = lab.pages();
  lab.map(1, root, 0x4000_0000n, RAM, { nT: 1 }, { level: 2 });
  lab.ste(1, { Config: 'S1_TRANS', S1ContextPtr: lab.cd({ TTB0: root >> 4n }) >> 6n });
  const only2 = lab.pages();
  lab.map(2, only2, 0x4000_0000n, RAM, { nT: 1 }, { level: 2 });
  lab.ste(2, { Config: 'S2_TRANS', ...lab.s2(only2, 3) });
  for (const sid of [1, 2]) {
    expect(lab.go(sid, 0x4000_1000n)).toBe(`0x${(RAM + 0x1000n).toString(16)}`);
    expect(isHit(lab, sid, 0x4000_1000n)).toBe(false);
  }
  expect([...lab.smmu.tlb.holdings()].filter((h) => h.cache === 'va' || h.cache === 'ipa')).toEqual([]);
});

describe('shapes', () => {
  test('only powers of two of sets, and at most 64 ways, can be built', () => {
    for (const [entries, ways] of [
      [48, 4],
      [256, 0],
      [256, 128],
      [2, 4],
    ] as const)
      expect(() => new TlbArray({ entries, ways, replacement: 'lru' })).toThrow(RangeError);
    expect(new TlbArray({ entries: 0, ways: 1, replacement: 'lru' }).on).toBe(false);
  });

  test('a small TLB forgets by its replacement, and translations stay right', () => {
    for (const replacement of ['round-robin', 'lru'] as const) {
      const tiny: TlbOptions = { ...DEFAULT_TLB, va: { entries: 4, ways: 4, replacement } };
      const lab = new Lab(labCaps(), { tlb: tiny });
      const root = lab.pages();
      for (let i = 0n; i < 8n; i++) lab.map(1, root, VA + i * 0x1000n, RAM + i * 0x1000n);
      lab.ste(1, { Config: 'S1_TRANS', S1ContextPtr: lab.cd({ TTB0: root >> 4n }) >> 6n });
      const go = (i: bigint): boolean => {
        expect(lab.go(1, VA + i * 0x1000n)).toBe(`0x${(RAM + i * 0x1000n).toString(16)}`);
        return lab.t.tlbHit;
      };
      for (const i of [0n, 1n, 2n, 3n, 0n, 4n]) go(i);
      expect([go(0n), [...lab.smmu.tlb.holdings()].filter((h) => h.cache === 'va').length]).toEqual([
        replacement === 'lru',
        4,
      ]);
    }
  });

  test('evict takes what stands at a place, and says whether something was there', () => {
    const { lab } = everyKind();
    const { tlb } = lab.smmu;
    const before = [...tlb.holdings()].length;
    let gone = 0;
    for (let place = 0; place < tlb.places; place++) if (tlb.evict(place)) gone++;
    expect(gone).toBe(before);
    expect([...tlb.holdings()]).toEqual([]);
    expect(tlb.evict(tlb.places)).toBe(false);
  });

  test('invalidation by VMID, ASID or address does not look at the other entries', () => {
    // 65,536 entries of other VMIDs: with a scan of all, this takes minutes instead of a moment.
    const caps = { S2P: true, DS: false };
    const big = { entries: 65_536, ways: 4, replacement: 'round-robin' } as const;
    const tlb = new Tlb({ va: big, ipa: big, s1Tables: big, s2Tables: big }, caps);
    const group = tlb.groups.group(1, 9);
    const space = tlb.groups.asid(group, 0, 1, 0);
    for (let i = 0; i < 60_000; i++) tlb.va.insert(0, i << 12, 12, space, tlb.groups.live(space)).level = 3;
    const inv = {
      VMID: 8,
      ASID: 1,
      addrHi: 0,
      addrLo: 0,
      Leaf: true,
      TTL: 0,
      TG: 0,
      NUM: 0,
      SCALE: 0,
      broadcast: false,
    };
    const regs = { VMW: 0, E2H: false };
    const victim = tlb.groups.group(1, 8);
    const own = tlb.groups.asid(victim, 0, 1, 0);
    for (let i = 0; i < 100_000; i++) {
      tlb.va.insert(1, i << 12, 12, own, tlb.groups.live(own)).level = 3;
      tlb.invalidate(
        { ...inv, opcode: [NH_ALL, NH_ASID, NH_VA, NH_VAA][i & 3] ?? 0, addrHi: 1, addrLo: i << 12 },
        regs,
      );
      expect(tlb.va.lookup(1, i << 12, victim.salt, own.id, 0)).toBe(null);
    }
    expect([...tlb.holdings()].filter((h) => h.VMID === 9).length).toBeGreaterThan(40_000);
  });
});
