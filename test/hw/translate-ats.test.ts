/** Translation Requests and Translated transactions (IHI 0070 3.9.1, 5.2 EATS, 13.7.1). */
import { describe, expect, test } from 'vitest';
import { Access, type Transaction } from '../../src/hw/transaction.ts';
import { Lab, labCaps, RAM, RAM_SIZE } from './translation-lab.ts';

const REQUEST = { access: Access.TranslationRequest };
const TRANSLATED = { access: Access.Translated };
const hex = (n: bigint): string => `0x${n.toString(16)}`;
const UR = 'AtsUr event=0x5 S2=0';
const FORBIDDEN = 'Abort event=0x7 S2=0';
type Ste = Parameters<Lab['ste']>[1];
type Cd = Parameters<Lab['cd']>[0];

/** Stream 3: stage 1 maps 0x1000 to IPA 0x8000_0000 with `leaf1`, stage 2 that to RAM + 0x5000 with `leaf2`. */
function both(ste: Ste = {}, cd: Cd = {}, leaf1 = {}, leaf2 = {}, caps = labCaps({ HTTU: 2 })) {
  const lab = new Lab(caps);
  const [s1, s2] = [lab.pages(), lab.pages()];
  for (let at = RAM; at < RAM + RAM_SIZE; at += 0x20_0000n) lab.map(2, s2, at, at, {}, { level: 2 });
  const leafAt1 = lab.map(1, s1, 0x1000n, 0x8000_0000n, leaf1);
  const leafAt2 = lab.map(2, s2, 0x8000_0000n, RAM + 0x5000n, leaf2);
  lab.ste(3, {
    Config: 'NESTED',
    S1ContextPtr: lab.cd({ TTB0: s1 >> 4n, ...cd }) >> 6n,
    ...lab.s2(s2, 1),
    EATS: 'FULL',
    ...ste,
  });
  lab.regs.ATSCHK = true;
  return { lab, leafAt1, leafAt2, s1, s2 };
}

/** What a request is granted: RWX. */
const granted = (t: Transaction): string =>
  `${t.grantRead ? 'R' : '-'}${t.grantWrite ? 'W' : '-'}${t.grantExec ? 'X' : '-'}`;

describe('who may ask [3.9.1.2, 3.9.1.3]', () => {
  test('SMMUEN=0: a request is UR with F_BAD_ATS_TREQ, a Translated transaction is forbidden', () => {
    const { lab } = both();
    lab.regs.SMMUEN = false;
    expect(lab.go(3, 0x1000n, REQUEST)).toBe(UR);
    expect(lab.go(3, 0x1000n, TRANSLATED)).toBe(FORBIDDEN);
  });

  test('effective EATS=00, Config=100 included: UR with F_BAD_ATS_TREQ, F_TRANSL_FORBIDDEN', () => {
    for (const ste of [{ EATS: 'OFF' }, { EATS: 'FULL_DPT' }, { Config: 'BYPASS' }] as const) {
      const { lab } = both(ste);
      expect(lab.go(3, 0x1000n, REQUEST)).toBe(UR);
      expect(lab.go(3, 0x1000n, TRANSLATED)).toBe(FORBIDDEN);
    }
  });

  test('EATS=10 acts as 00 while ATSCHK=0 [5.2 EATS]', () => {
    const { lab } = both({ EATS: 'SPLIT' });
    expect(lab.go(3, 0x1000n, REQUEST)).toBe('0x80000000');
    lab.regs.ATSCHK = false;
    expect(lab.go(3, 0x1000n, REQUEST)).toBe(UR);
  });

  test('Config=0xx: UR and abort, no event', () => {
    const { lab } = both({ Config: 'ABORT' });
    expect(lab.go(3, 0x1000n, REQUEST)).toBe('AtsUr event=0x0 unrecorded S2=0');
    expect(lab.go(3, 0x1000n, TRANSLATED)).toBe('Abort event=0x0 unrecorded S2=0');
  });

  test('ATSCHK=0: every Translated transaction passes as a physical address, up to OAS', () => {
    const { lab } = both({ EATS: 'OFF' });
    lab.regs.ATSCHK = false;
    expect(lab.go(3, 0x1234_5678n, TRANSLATED)).toBe('0x12345678');
    expect(lab.go(77, 0x1234_5678n, TRANSLATED)).toBe('0x12345678');
    expect(lab.go(3, 1n << 48n, TRANSLATED)).toBe('Abort event=0x0 unrecorded S2=0');
    const cut = new Lab(labCaps(), { choices: { translatedBeyondOas: 'truncate' } });
    expect(cut.go(3, (1n << 48n) | 0x5000n, TRANSLATED)).toBe('0x5000');
  });

  test('configuration errors: CA or abort, recorded only with REC_CFG_ATS', () => {
    const { lab } = both({ S2T0SZ: 5 });
    expect(lab.go(3, 0x1000n, REQUEST)).toBe('AtsCa event=0x4 unrecorded S2=0');
    expect(lab.go(3, 0x1000n, TRANSLATED)).toBe('Abort event=0x4 unrecorded S2=0');
    lab.regs.REC_CFG_ATS = true;
    expect(lab.go(3, 0x1000n, REQUEST)).toBe('AtsCa event=0x4 S2=0');
    expect(lab.go(3, 0x1000n, TRANSLATED)).toBe('Abort event=0x4 S2=0');
    // Of an unknown stream, a request needs RECINVSID as well; a Translated transaction does not.
    expect(lab.go(300, 0x1000n, REQUEST)).toBe('AtsCa event=0x2 unrecorded S2=0');
    expect(lab.go(300, 0x1000n, TRANSLATED)).toBe('Abort event=0x2 S2=0');
    lab.regs.RECINVSID = true;
    expect(lab.go(300, 0x1000n, REQUEST)).toBe('AtsCa event=0x2 S2=0');
  });
});

describe('what a request is granted [13.7.1]', () => {
  const cases: readonly [string, Ste, Cd, object, object, Partial<Transaction>, string][] = [
    ['both stages', {}, {}, { AP: 1 }, { S2AP: 3 }, {}, 'RW-'],
    ['No Write has no effect on a dirty page here', {}, {}, { AP: 1 }, { S2AP: 3 }, { noWrite: true }, 'RW-'],
    ['read-only at stage 1', {}, {}, { AP: 3 }, { S2AP: 3 }, {}, 'R--'],
    ['read-only at stage 2', {}, {}, { AP: 1 }, { S2AP: 1 }, {}, 'R--'],
    ['write-only at stage 2', {}, {}, { AP: 1 }, { S2AP: 2 }, {}, '-W-'],
    ['privileged page, no PASID: unprivileged', {}, {}, { AP: 0 }, {}, { PnU: true }, '---'],
    ['PRIVCFG', { PRIVCFG: 'PRIVILEGED' }, {}, { AP: 0 }, {}, {}, 'RW-'],
    ['Execute needs a PASID', {}, {}, { AP: 1 }, {}, { InD: true }, 'RW-'],
    ['INSTCFG=Instruction: read means execute', { INSTCFG: 'INSTRUCTION' }, {}, { AP: 0 }, {}, {}, 'R--'],
    ['execute-only gives nothing', {}, {}, { AP: 0 }, {}, {}, '---'],
  ];
  for (const [name, ste, cd, leaf1, leaf2, ask, expected] of cases)
    test(name, () => {
      const { lab } = both(ste, cd, leaf1, leaf2);
      lab.go(3, 0x1000n, { ...REQUEST, ...ask });
      expect(granted(lab.t)).toBe(expected);
      lab.go(3, 0x1000n, { ...REQUEST, ...ask });
      expect(granted(lab.t)).toBe(expected);
    });

  test("with a PASID, Execute and Privileged are the request's", () => {
    const { lab } = both({ S1CDMax: 4 });
    const pasid = { ...REQUEST, SSV: true, SubstreamID: 0, InD: true };
    expect(lab.go(3, 0x1000n, pasid)).toBe(hex(RAM + 0x5000n));
    expect(granted(lab.t)).toBe('RWX');
    lab.go(3, 0x1000n, { ...pasid, PnU: true });
    // AP 01 pages are not privileged code.
    expect(granted(lab.t)).toBe('RW-');
  });

  test('faults of address and access at either stage: Success with nothing granted, no event', () => {
    const nothing = (lab: Lab, va: bigint): void => {
      expect(lab.go(3, va, REQUEST)).toBe('0x0');
      expect([granted(lab.t), lab.t.record]).toEqual(['---', false]);
    };
    nothing(both().lab, 0x9000n);
    nothing(both({}, {}, { AF: 0 }).lab, 0x1000n);
    nothing(both({}, {}, {}, { AF: 0 }).lab, 0x1000n);
    const { lab, s1 } = both();
    lab.memory.write64(s1, (1n << 45n) | 3n);
    nothing(lab, 0x1000n);
  });

  test('an external abort of the walk: CA', () => {
    const { lab, s1, s2 } = both();
    lab.map(2, s2, 0x2_0000_0000n, 0x2_0000_0000n, {}, { level: 1 });
    lab.memory.write64(s1, 0x2_0000_0003n);
    expect(lab.go(3, 0x1000n, REQUEST)).toContain('AtsCa event=0xb');
  });

  test('S1DSS=01 without a PASID: identity, or stage 2 alone [13.6.4]', () => {
    const { lab } = both({ S1CDMax: 4, S1DSS: 'BYPASS' });
    expect(lab.go(3, 0x8000_0000n, REQUEST)).toBe(hex(RAM + 0x5000n));
    const one = both({ Config: 'S1_TRANS', S1CDMax: 4, S1DSS: 'BYPASS' });
    expect(one.lab.go(3, 0x1234_5000n, REQUEST)).toBe('0x12345000');
    expect(granted(one.lab.t)).toBe('RW-');
    expect(one.lab.go(3, 1n << 48n, REQUEST)).toBe('0x0');
    expect(granted(one.lab.t)).toBe('---');
  });
});

describe('hardware updates by a request [3.13.7.1]', () => {
  const AF = 1n << 10n;
  const DBM = 1n << 51n;
  const READ_ONLY = 1n << 7n;
  const HAD = { HA: 1, HD: 1 } as const;

  test('Access flags are set; write is granted on a writable-clean page only without No Write, which makes it dirty', () => {
    const { lab, leafAt1 } = both({}, HAD, { AP: 3, DBM: 1, AF: 0 });
    lab.go(3, 0x1000n, { ...REQUEST, noWrite: true });
    expect(granted(lab.t)).toBe('R--');
    expect(lab.memory.read64(leafAt1) & (AF | READ_ONLY)).toBe(AF | READ_ONLY);
    lab.go(3, 0x1000n, REQUEST);
    expect(granted(lab.t)).toBe('RW-');
    expect(lab.memory.read64(leafAt1) & READ_ONLY).toBe(0n);
  });

  test('stage 1 read-only and stage 2 writable-clean: neither is made dirty', () => {
    const { lab, leafAt1, leafAt2 } = both({ S2HA: 1, S2HD: 1 }, HAD, { AP: 3 }, { S2AP: 1, DBM: 1 });
    const before = [lab.memory.read64(leafAt1), lab.memory.read64(leafAt2)];
    lab.go(3, 0x1000n, REQUEST);
    expect(granted(lab.t)).toBe('R--');
    expect([lab.memory.read64(leafAt1), lab.memory.read64(leafAt2)]).toEqual(before);
    expect(before[1] === undefined ? 0n : before[1] & DBM).toBe(DBM);
  });
});

describe('split-stage [3.9.1, 5.2 EATS]', () => {
  test('a request returns the intermediate address, with the permissions of both stages', () => {
    const { lab } = both({ EATS: 'SPLIT' }, {}, { AP: 1 }, { S2AP: 1 });
    expect(lab.go(3, 0x1abcn, REQUEST)).toBe('0x80000abc');
    expect(granted(lab.t)).toBe('R--');
    expect(lab.go(3, 0x1abcn, REQUEST)).toBe('0x80000abc');
    expect(lab.t.tlbHit).toBe(true);
  });

  test('a Translated transaction goes through stage 2; its faults are recorded as ordinary ones', () => {
    const { lab } = both({ EATS: 'SPLIT' }, {}, {}, { S2AP: 1 });
    expect(lab.go(3, 0x8000_0010n, TRANSLATED)).toBe(hex(RAM + 0x5010n));
    expect(lab.go(3, 0x8000_0010n, { ...TRANSLATED, isWrite: true })).toBe(
      'Abort event=0x13 S2=1 ipa=0x80000010 class=2',
    );
    expect(lab.go(3, 0x9999_0000n, TRANSLATED)).toBe('Abort event=0x10 S2=1 ipa=0x99990000 class=2');
    expect(lab.go(3, 1n << 48n, TRANSLATED)).toBe('Abort event=0x11 S2=0');
    expect(lab.t.CLASS).toBe(2);
  });

  test('full ATS: a Translated address is physical', () => {
    const { lab } = both();
    expect(lab.go(3, 0x9999_0000n, TRANSLATED)).toBe('0x99990000');
    expect(lab.go(3, 1n << 48n, TRANSLATED)).toBe('Abort event=0x0 unrecorded S2=0');
  });
});

test('a Translated transaction with a PASID: substream and CD are checked where IDR3.PASIDTT says so', () => {
  for (const PASIDTT of [0, 1]) {
    const { lab } = both({ S1CDMax: 4 }, {}, {}, {}, labCaps({}, {}, { PASIDTT }));
    lab.regs.REC_CFG_ATS = true;
    const pasid = { ...TRANSLATED, SSV: true, SubstreamID: 16 };
    expect(lab.go(3, 0x7000n, pasid)).toBe(PASIDTT === 1 ? 'Abort event=0x8 S2=0' : '0x7000');
    expect(lab.go(3, 0x7000n, { ...pasid, SubstreamID: 1 })).toBe(PASIDTT === 1 ? 'Abort event=0xa S2=0' : '0x7000');
    expect(lab.go(3, 0x7000n, { ...pasid, SubstreamID: 0 })).toBe('0x7000');
  }
});
