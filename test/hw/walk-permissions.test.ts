/** Who may do what: stage 1, stage 2, and hardware updates of Access flag and dirty state. */
import { describe, expect, test } from 'vitest';
import { ipaOf, Lab, labCaps, RAM, RAM_SIZE } from './translation-lab.ts';

type LabCd = Parameters<Lab['cd']>[0];
type Leaf = Readonly<Record<string, number>>;

const READ = {};
const WRITE = { isWrite: true };
const FETCH = { InD: true };

/** What one stage 1 leaf lets privileged and unprivileged code do: letters of RWX, privileged first. */
function stage1(leaf: Leaf, cd: LabCd = {}, table: Leaf = {}, strw: 'EL1' | 'EL2' = 'EL1'): string {
  const lab = new Lab();
  const root = lab.pages();
  lab.map(1, root, 0x1000n, 0x4000_1000n, leaf, { table });
  lab.ste(3, { Config: 'S1_TRANS', S1ContextPtr: lab.cd({ TTB0: root >> 4n, ...cd }) >> 6n, STRW: strw });
  return rights(lab);
}

/** What one stage 2 leaf lets privileged and unprivileged code do. */
function stage2(leaf: Leaf, xnx = 1): string {
  const lab = new Lab(labCaps({}, {}, { XNX: xnx }));
  const root = lab.pages();
  lab.map(2, root, 0x1000n, 0x4000_1000n, leaf);
  lab.ste(3, { Config: 'S2_TRANS', ...lab.s2(root, 1) });
  return rights(lab);
}

/** Each access is tried twice, so that what the TLB answers is the same; and what is refused is F_PERMISSION. */
function rights(lab: Lab): string {
  const of = (PnU: boolean): string =>
    ([READ, WRITE, FETCH] as const)
      .map((access, i) => {
        const answers = [lab.go(3, 0x1000n, { PnU, ...access }), lab.go(3, 0x1000n, { PnU, ...access })];
        const allowed = answers.map((answer) => answer === '0x40001000');
        expect(allowed[0]).toBe(allowed[1]);
        if (!allowed[0]) expect(lab.t.event).toBe(0x13);
        return allowed[0] ? 'RWX'[i] : '-';
      })
      .join('');
  return `${of(true)} ${of(false)}`;
}

describe('stage 1 permissions [13.4, DDI 0487 D8.4]', () => {
  const table: readonly [string, Leaf, LabCd, Leaf, string][] = [
    ['AP 00: privileged only; unprivileged code may still execute', { AP: 0 }, {}, {}, 'RWX --X'],
    ['AP 01: unprivileged-writable pages are not privileged code', { AP: 1 }, {}, {}, 'RW- RWX'],
    ['AP 10: privileged read-only', { AP: 2 }, {}, {}, 'R-X --X'],
    ['AP 11: read-only', { AP: 3 }, {}, {}, 'R-X R-X'],
    ['PXN', { AP: 3, PXN: 1 }, {}, {}, 'R-- R-X'],
    ['UXN', { AP: 3, UXN: 1 }, {}, {}, 'R-X R--'],
    ['APTable 01 takes unprivileged data access away', { AP: 1 }, {}, { APTable: 1 }, 'RWX --X'],
    ['APTable 10 takes write away', { AP: 1 }, {}, { APTable: 2 }, 'R-X R-X'],
    ['APTable 11 takes both away', { AP: 1 }, {}, { APTable: 3 }, 'R-X --X'],
    ['PXNTable and UXNTable', { AP: 3 }, {}, { PXNTable: 1, UXNTable: 1 }, 'R-- R--'],
    ['HAD0: tables take nothing away', { AP: 1 }, { HAD0: 1 }, { APTable: 3, UXNTable: 1 }, 'RW- RWX'],
    ['WXN: writable is not executable, for each level', { AP: 0 }, { WXN: 1 }, {}, 'RW- --X'],
    ['WXN with AP 01', { AP: 1 }, { WXN: 1 }, {}, 'RW- RW-'],
    ['PAN: no privileged data access to unprivileged pages', { AP: 3 }, { PAN: 1 }, {}, '--X R-X'],
    ['PAN leaves privileged pages alone', { AP: 2 }, { PAN: 1 }, {}, 'R-X --X'],
    ['EPAN covers unprivileged-executable pages', { AP: 2 }, { PAN: 1, EPAN: 1 }, {}, '--X --X'],
    ['EPAN with UXN leaves them alone', { AP: 2, UXN: 1 }, { PAN: 1, EPAN: 1 }, {}, 'R-X ---'],
  ];
  for (const [name, leaf, cd, tables, expected] of table)
    test(name, () => expect(stage1(leaf, cd, tables)).toBe(expected));

  test('NS-EL2: AP[1] is taken as 1, one XN, no PAN', () => {
    expect(stage1({ AP: 0 }, { PAN: 1 }, {}, 'EL2')).toBe('RWX RWX');
    expect(stage1({ AP: 2, UXN: 1, PXN: 1 }, {}, {}, 'EL2')).toBe('R-- R--');
    expect(stage1({ AP: 2, PXN: 1 }, {}, { APTable: 1 }, 'EL2')).toBe('R-X R-X');
    expect(stage1({ AP: 0 }, { WXN: 1 }, { UXNTable: 0 }, 'EL2')).toBe('RW- RW-');
  });

  test('an atomic access needs read and write [13.1.1]', () => {
    const lab = new Lab();
    const root = lab.pages();
    lab.map(2, root, 0x1000n, 0x4000_1000n, { S2AP: 2 });
    lab.ste(3, { Config: 'S2_TRANS', ...lab.s2(root, 1) });
    expect(lab.go(3, 0x1000n, WRITE)).toBe('0x40001000');
    expect(lab.go(3, 0x1000n, { isAtomic: true })).toContain('event=0x13');
    expect(lab.t.grantWrite).toBe(true);
  });

  test('STE.PRIVCFG and INSTCFG replace what comes in; writes are never fetches [5.2, 13.1.2]', () => {
    const lab = new Lab();
    const root = lab.pages();
    lab.map(1, root, 0x1000n, 0x4000_1000n, { AP: 0, UXN: 1 });
    const cd = lab.cd({ TTB0: root >> 4n });
    lab.ste(3, { Config: 'S1_TRANS', S1ContextPtr: cd >> 6n, PRIVCFG: 'PRIVILEGED', INSTCFG: 'DATA' });
    expect(lab.go(3, 0x1000n)).toBe('0x40001000');
    expect([lab.t.eventPnU, lab.t.eventInD]).toEqual([true, false]);
    lab.ste(4, { Config: 'S1_TRANS', S1ContextPtr: cd >> 6n, PRIVCFG: 'UNPRIVILEGED', INSTCFG: 'INSTRUCTION' });
    expect(lab.go(4, 0x1000n, { PnU: true })).toContain('event=0x13');
    expect([lab.t.eventPnU, lab.t.eventInD]).toEqual([false, true]);
    lab.go(4, 0x1000n, { isWrite: true });
    expect(lab.t.eventInD).toBe(false);
  });
});

describe('stage 2 permissions [DDI 0487 D8.4, 5.2]', () => {
  const table: readonly [string, Leaf, number, string][] = [
    ['S2AP 00, XN 00: execute-only', { S2AP: 0 }, 1, '--X --X'],
    ['S2AP 01', { S2AP: 1 }, 1, 'R-X R-X'],
    ['S2AP 10', { S2AP: 2 }, 1, '-WX -WX'],
    ['S2AP 11', { S2AP: 3 }, 1, 'RWX RWX'],
    ['XN 01: not privileged', { S2AP: 1, XN: 1 }, 1, 'R-- R-X'],
    ['XN 10: nobody', { S2AP: 1, XN: 2 }, 1, 'R-- R--'],
    ['XN 11: not unprivileged', { S2AP: 1, XN: 3 }, 1, 'R-X R--'],
    ['without XNX, XN[0] means nothing', { S2AP: 1, XN: 1 }, 0, 'R-X R-X'],
    ['without XNX, XN[1] is XN', { S2AP: 1, XN: 3 }, 0, 'R-- R--'],
  ];
  for (const [name, leaf, xnx, expected] of table) test(name, () => expect(stage2(leaf, xnx)).toBe(expected));
});

/** Stream 3, nested, VMID 7. Stage 2 maps RAM in 2 MiB blocks at {@link ipaOf}; stage 1 is the test's. */
function nested(ste: Parameters<Lab['ste']>[1] = {}, cd: LabCd = {}, caps = labCaps({ HTTU: 3 })) {
  const lab = new Lab(caps);
  const s2 = lab.pages();
  const s1 = lab.pages();
  for (let at = RAM; at < RAM + RAM_SIZE; at += 0x20_0000n) lab.map(2, s2, ipaOf(at), at, {}, { level: 2 });
  const at = lab.cd({ TTB0: ipaOf(s1) >> 4n, ...cd });
  lab.ste(3, { Config: 'NESTED', S1ContextPtr: ipaOf(at) >> 6n, ...lab.s2(s2, 7), ...ste });
  return { lab, s1, s2 };
}

/** The block of stage 2 that covers an address of RAM. */
const blockOf = (lab: Lab, s2: bigint, pa: bigint): bigint =>
  lab.map(2, s2, ipaOf(pa) & ~0x1f_ffffn, pa & ~0x1f_ffffn, {}, { level: 2 });

const AF = 1n << 10n;
const DBM = 1n << 51n;
const READ_ONLY = 1n << 7n;
const S2_WRITE = 1n << 7n;

describe('Access flag [3.13]', () => {
  test('without HTTU a clear flag is F_ACCESS, unless AFFD; memory stays as it is; nothing is cached', () => {
    const { lab, s1 } = nested();
    const at = lab.map(1, s1, 0x1000n, ipaOf(0x4000_5000n), { AF: 0 }, { ipaOf });
    expect(lab.go(3, 0x1000n)).toBe('Abort event=0x12 S2=0');
    // Setting the flag needs no TLBI (3.13.1).
    lab.memory.write64(at, lab.memory.read64(at) | AF);
    expect(lab.go(3, 0x1000n)).toBe('0x40005000');
    const soft = nested({}, { AFFD: 1 });
    const other = soft.lab.map(1, soft.s1, 0x1000n, ipaOf(0x4000_5000n), { AF: 0 }, { ipaOf });
    expect(soft.lab.go(3, 0x1000n)).toBe('0x40005000');
    expect(soft.lab.memory.read64(other) & AF).toBe(0n);
  });

  test('CD.HA: hardware sets it; F_ACCESS comes before F_PERMISSION without it', () => {
    const { lab, s1 } = nested({}, { HA: 1 });
    const at = lab.map(1, s1, 0x1000n, ipaOf(0x4000_5000n), { AF: 0 }, { ipaOf });
    expect(lab.go(3, 0x1000n)).toBe('0x40005000');
    expect(lab.memory.read64(at) & AF).toBe(AF);
    const off = nested();
    off.lab.map(1, off.s1, 0x1000n, ipaOf(0x4000_5000n), { AF: 0, AP: 3 }, { ipaOf });
    expect(off.lab.go(3, 0x1000n, WRITE)).toContain('event=0x12');
  });

  test('S2HA sets the flag of every stage 2 leaf on the way: CD, tables and data', () => {
    const { lab, s1, s2 } = nested({ S2HA: 1 });
    lab.map(1, s1, 0x1000n, ipaOf(0x6000_5000n), {}, { ipaOf });
    const tables = blockOf(lab, s2, s1);
    const data = blockOf(lab, s2, 0x6000_5000n);
    for (const at of [tables, data]) lab.memory.write64(at, lab.memory.read64(at) & ~AF);
    expect(lab.go(3, 0x1000n)).toBe('0x60005000');
    for (const at of [tables, data]) expect(lab.memory.read64(at) & AF).toBe(AF);
  });

  test('S2AFFD and F_ACCESS at stage 2: class and intermediate address', () => {
    const { lab, s1, s2 } = nested();
    lab.map(1, s1, 0x1000n, ipaOf(0x6000_5000n), {}, { ipaOf });
    const data = blockOf(lab, s2, 0x6000_5000n);
    lab.memory.write64(data, lab.memory.read64(data) & ~AF);
    expect(lab.go(3, 0x1008n)).toBe(`Abort event=0x12 S2=1 ipa=0x${ipaOf(0x6000_5008n).toString(16)} class=2`);
  });

  test('HAFT sets the flag of Table descriptors of both stages', () => {
    const { lab, s1, s2 } = nested({ S2HA: 1, S2HAFT: 1 }, { HA: 1, HAFT: 1 });
    lab.map(1, s1, 0x1000n, ipaOf(0x4000_5000n), {}, { ipaOf });
    expect(lab.go(3, 0x1000n)).toBe('0x40005000');
    expect(lab.memory.read64(s1) & AF).toBe(AF);
    expect(lab.memory.read64(s2 + 2n * 8n) & AF).toBe(AF);
  });
});

describe('dirty state [3.13]', () => {
  test('a write makes a writable-clean stage 1 leaf dirty; a read does not; the cached clean entry does not answer a write', () => {
    const { lab, s1 } = nested({}, { HA: 1, HD: 1 });
    const at = lab.map(1, s1, 0x1000n, ipaOf(0x4000_5000n), { AP: 3, DBM: 1 }, { ipaOf });
    expect(lab.go(3, 0x1000n)).toBe('0x40005000');
    expect(lab.memory.read64(at) & READ_ONLY).toBe(READ_ONLY);
    expect(lab.go(3, 0x1000n, WRITE)).toBe('0x40005000');
    expect(lab.memory.read64(at) & (READ_ONLY | DBM)).toBe(DBM);
    expect(lab.go(3, 0x1000n, WRITE)).toBe('0x40005000');
    expect(lab.t.tlbHit).toBe(true);
  });

  test('not where APTable forbids the write, not without DBM, not without HD', () => {
    for (const [cd, leaf, table] of [
      [{ HA: 1, HD: 1 }, { AP: 3, DBM: 1 }, { APTable: 2 }],
      [{ HA: 1, HD: 1 }, { AP: 3 }, {}],
      [{ HA: 1 }, { AP: 3, DBM: 1 }, {}],
      [{ HD: 1 }, { AP: 3, DBM: 1 }, {}],
    ] as const) {
      const { lab, s1 } = nested({}, cd);
      const at = lab.map(1, s1, 0x1000n, ipaOf(0x4000_5000n), leaf, { ipaOf, table });
      expect(lab.go(3, 0x1000n, WRITE)).toContain('event=0x13');
      expect(lab.memory.read64(at) & READ_ONLY).toBe(READ_ONLY);
    }
  });

  test('writable-clean counts as writable for WXN and the implicit PXN [3.13.8]', () => {
    const { lab, s1 } = nested({}, { HA: 1, HD: 1 });
    lab.map(1, s1, 0x1000n, ipaOf(0x4000_5000n), { AP: 3, DBM: 1 }, { ipaOf });
    expect(lab.go(3, 0x1000n, { InD: true, PnU: true })).toContain('event=0x13');
    expect(lab.go(3, 0x1000n, { InD: true })).toBe('0x40005000');
  });

  test('stage 2: S2AP[1] is set by a write and by a stage 1 update, never by a CD fetch or a plain walk', () => {
    const { lab, s1, s2 } = nested({ S2HA: 1, S2HD: 1 }, { HA: 1 });
    const leaf = lab.map(1, s1, 0x1000n, ipaOf(0x6000_5000n), { AF: 0 }, { ipaOf });
    const tables = blockOf(lab, s2, s1);
    const data = blockOf(lab, s2, 0x6000_5000n);
    for (const at of [tables, data]) lab.memory.write64(at, (lab.memory.read64(at) & ~S2_WRITE) | DBM);
    lab.memory.write64(leaf, lab.memory.read64(leaf) | AF);
    expect(lab.go(3, 0x1000n)).toBe('0x60005000');
    for (const at of [tables, data]) expect(lab.memory.read64(at) & S2_WRITE).toBe(0n);
    expect(lab.go(3, 0x1000n, WRITE)).toBe('0x60005000');
    expect(lab.memory.read64(data) & S2_WRITE).toBe(S2_WRITE);
    expect(lab.memory.read64(tables) & S2_WRITE).toBe(0n);
    lab.memory.write64(leaf, lab.memory.read64(leaf) & ~AF);
    lab.smmu.tlb.clear();
    expect(lab.go(3, 0x1000n)).toBe('0x60005000');
    expect(lab.memory.read64(tables) & S2_WRITE).toBe(S2_WRITE);
  });

  test('a stage 1 update where stage 2 is read-only: F_PERMISSION, S2=1, CLASS=TT, TTRnW=0 and the IPA of the descriptor', () => {
    const { lab, s1, s2 } = nested({}, { HA: 1 });
    const leaf = lab.map(1, s1, 0x1000n, ipaOf(0x6000_5000n), { AF: 0 }, { ipaOf });
    const tables = blockOf(lab, s2, s1);
    lab.memory.write64(tables, lab.memory.read64(tables) & ~S2_WRITE);
    expect(lab.go(3, 0x1000n)).toBe(`Abort event=0x13 S2=1 ipa=0x${ipaOf(leaf).toString(16)} class=1`);
    expect(lab.t.TTRnW).toBe(false);
    expect(lab.memory.read64(leaf) & AF).toBe(0n);
    lab.memory.write64(tables, lab.memory.read64(tables) & ~(1n << 6n));
    lab.smmu.tlb.clear();
    lab.smmu.configCache.invalidateAll();
    expect(lab.go(3, 0x1000n)).toContain('event=0x13 S2=1');
    expect([lab.t.CLASS, lab.t.TTRnW]).toEqual([0, true]);
  });

  test('stage 2 tables that map themselves and change under the walk end in an answer', () => {
    const { lab, s1, s2 } = nested({ S2HA: 1, S2HD: 1 }, { HA: 1, HD: 1 });
    lab.map(1, s1, 0x1000n, ipaOf(s1), { AF: 0, AP: 3, DBM: 1 }, { ipaOf });
    const own = blockOf(lab, s2, s2);
    lab.memory.write64(own, (lab.memory.read64(own) & ~(AF | S2_WRITE)) | DBM);
    expect(lab.go(3, 0x1000n, WRITE)).toBe(`0x${s1.toString(16)}`);
  });
});

describe('S2PTW and PTWNNC [5.2 S2PTW]', () => {
  for (const [MemAttr, device] of [
    [1, true],
    [5, false],
    [15, false],
  ] as const)
    test(`a walk through MemAttr ${MemAttr} ${device ? 'faults' : 'goes on'} with S2PTW=1`, () => {
      const { lab, s1, s2 } = nested({ S2PTW: 1 });
      const far = 0x7000_0000n;
      lab.map(1, s1, 0x1000n, ipaOf(0x6000_5000n), {}, { ipaOf });
      lab.map(2, s2, ipaOf(far), far, { MemAttr }, { level: 2 });
      // The level 0 table names a level 1 table in that block.
      const l1 = lab.memory.read64(s1) & 0xffff_ffff_f000n;
      lab.memory.writeBytes(far, lab.memory.readBytes(l1 - (1n << 40n), 4096));
      lab.memory.write64(s1, ipaOf(far) | 3n);
      const answer = lab.go(3, 0x1000n);
      expect(answer).toBe(device ? `Abort event=0x13 S2=1 ipa=0x${ipaOf(far).toString(16)} class=1` : '0x60005000');
    });
});
