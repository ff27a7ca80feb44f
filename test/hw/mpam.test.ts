/** MPAM ids of traffic and Virtual Machine Structures (IHI 0070 5.6, 6.3.41 to 6.3.43, 4.3.5, 7.3.20). */
import { describe, expect, test } from 'vitest';
import { type Caps, capsOf } from '../../spec/caps.ts';
import type { CD } from '../../spec/cd.ts';
import { IDR0, IDR1, IDR3, IDR5 } from '../../spec/id-registers.ts';
import type { Encoding } from '../../spec/layout.ts';
import * as spec from '../../spec/registers.ts';
import type { STE } from '../../spec/ste.ts';
import { NO_CONFIG_CACHE } from '../../src/hw/config-cache.ts';
import { full, linuxNesting, type SmmuConfig } from '../../src/hw/index.ts';
import { Access, Transaction } from '../../src/hw/transaction.ts';
import type { TranslatorOptions } from '../../src/hw/translation-options.ts';
import { machineWith, Regs } from './harness.ts';
import { Lab } from './translation-lab.ts';

/** PARTID_MAX 63, PMG_MAX 3. */
const mpamCaps = (MPAMIDR = 0x0003003f, S2P: 0 | 1 = 1): Caps =>
  capsOf({
    IDR0: IDR0.value({ S1P: 1, S2P, TTF: 2, COHACC: 1, ATS: 1, ASID16: 1, VMID16: 1, CD2L: 1 }),
    IDR1: IDR1.value({ SIDSIZE: 16, SSIDSIZE: 20 }),
    IDR3: IDR3.value({ MPAM: 1, FWB: S2P, RIL: 1, HAD: 1 }),
    IDR5: IDR5.value({ GRAN4K: 1, OAS: 5 }),
    AIDR: 2,
    MPAMIDR,
  });

const DATA = 0x6000_0000n;

/** A stream that maps page 0x1000 to DATA through the stages that `Config` asks for, and its VMS. */
function stream(
  Config: 'BYPASS' | 'S1_TRANS' | 'S2_TRANS' | 'NESTED',
  ste: Encoding<typeof STE.fields> = {},
  cd: Encoding<typeof CD.fields> = {},
  caps = mpamCaps(),
  options: TranslatorOptions = {},
) {
  const lab = new Lab(caps, options);
  const nested = Config === 'NESTED';
  const root1 = lab.pages();
  lab.map(1, root1, 0x1000n, DATA);
  const cdAt = lab.cd({ TTB0: root1 >> 4n, ...cd });
  const root2 = lab.pages();
  // Stage 2 is the identity on the gigabyte of RAM, and page 0x1000 is DATA.
  lab.map(2, root2, 0x4000_0000n, 0x4000_0000n, {}, { level: 1 });
  lab.map(2, root2, 0x1000n, DATA);
  const vms = lab.pages();
  const stage2 = Config === 'S2_TRANS' || nested ? lab.s2(root2, 7) : {};
  const ids = { PARTID: 5, PMG: 1, VMSPtr: vms >> 12n };
  lab.ste(5, { Config, S1ContextPtr: cdAt >> 6n, ...stage2, ...ids, ...ste });
  const map = (virtual: number, physical: number): void => lab.memory.write16(vms + BigInt(virtual * 2), physical);
  const ids1 = (va = 0x1000n, how: Partial<Transaction> = {}): [number, number] => {
    lab.go(5, va, how);
    return [lab.t.PARTID, lab.t.PMG];
  };
  return { lab, map, ids: ids1 };
}

const CD_IDS = { PARTID: 9, PMG: 2 } as const;

describe('where the ids come from [5.2 PARTID, S1MPAM; 5.4 PARTID]', () => {
  test.each(['BYPASS', 'S2_TRANS', 'S1_TRANS', 'NESTED'] as const)('%s with S1MPAM = 0: the STE', (Config) => {
    expect(stream(Config, {}, CD_IDS).ids(Config === 'BYPASS' ? DATA : 0x1000n)).toEqual([5, 1]);
  });

  test.each(['BYPASS', 'S2_TRANS'] as const)('%s: S1MPAM is IGNORED', (Config) => {
    expect(stream(Config, { S1MPAM: 1 }, CD_IDS).ids(Config === 'BYPASS' ? DATA : 0x1000n)).toEqual([5, 1]);
  });

  test('stage 1 alone with S1MPAM = 1: the CD, physical', () => {
    expect(stream('S1_TRANS', { S1MPAM: 1 }, CD_IDS).ids()).toEqual([9, 2]);
  });

  test('S1DSS bypass: the STE', () => {
    const { ids } = stream('S1_TRANS', { S1MPAM: 1, S1CDMax: 1, S1DSS: 'BYPASS' }, CD_IDS);
    expect(ids(DATA)).toEqual([5, 1]);
  });

  test('nested with S1MPAM = 1: PARTID_MAP of the CD, PMG as it stands', () => {
    const { ids, map } = stream('NESTED', { S1MPAM: 1 }, CD_IDS);
    map(9, 33);
    expect(ids()).toEqual([33, 2]);
  });

  test.each([0, 1, 30, 31])('virtual PARTID %i', (virtual) => {
    const { ids, map } = stream('NESTED', { S1MPAM: 1 }, { ...CD_IDS, PARTID: virtual });
    map(virtual, 40 + (virtual % 8));
    expect(ids()[0]).toBe(40 + (virtual % 8));
  });

  test('ids above MPAMIDR count as 0 (UNKNOWN there)', () => {
    expect(stream('BYPASS', { PARTID: 64, PMG: 4 }).ids(DATA)).toEqual([0, 0]);
    const { ids, map } = stream('NESTED', { S1MPAM: 1 }, { PARTID: 9, PMG: 4 });
    map(9, 64);
    expect(ids()).toEqual([0, 0]);
  });

  test('with a TLB hit the ids are those of the CD as well', () => {
    const { ids, map, lab } = stream('NESTED', { S1MPAM: 1 }, CD_IDS);
    map(9, 33);
    ids();
    expect([ids(), lab.t.tlbHit]).toEqual([[33, 2], true]);
  });

  test('without configuration cache, too', () => {
    const { ids, map } = stream('NESTED', { S1MPAM: 1 }, CD_IDS, mpamCaps(), { configCache: NO_CONFIG_CACHE });
    map(9, 33);
    expect(ids()).toEqual([33, 2]);
    map(9, 34);
    expect(ids()).toEqual([34, 2]);
  });

  test('without IDR3.MPAM there are none', () => {
    const lab = new Lab();
    lab.ste(5, { Config: 'BYPASS' });
    lab.go(5, DATA);
    expect([lab.t.PARTID, lab.t.PMG]).toEqual([0, 0]);
  });
});

describe('the VMS [5.6]', () => {
  test('an aborted fetch is F_VMS_FETCH with the address, aborts, and is not cached [7.3.20, 3.21.3]', () => {
    const { lab, ids } = stream('NESTED', { S1MPAM: 1, VMSPtr: 0x1000_0000n >> 12n }, CD_IDS);
    expect(lab.go(5, 0x1000n)).toBe('Abort event=0x25 S2=0');
    expect([lab.t.fetchHi, lab.t.fetchLo]).toEqual([0, 0x1000_0000]);
    lab.memory.addRegion(0x1000_0000n, 0x1000n);
    lab.memory.write16(0x1000_0012n, 21);
    expect(ids()[0]).toBe(21);
  });

  test('a pointer beyond OAS is C_BAD_STE only where the VMS is enabled [5.2 VMSPtr]', () => {
    const beyond = 1n << (48n - 12n);
    expect(stream('NESTED', { S1MPAM: 1, VMSPtr: beyond }).lab.go(5, 0x1000n)).toBe('Abort event=0x4 S2=0');
    expect(stream('NESTED', { VMSPtr: beyond }).lab.go(5, 0x1000n)).toBe(`0x${DATA.toString(16)}`);
    expect(stream('S1_TRANS', { S1MPAM: 1, VMSPtr: beyond }).lab.go(5, 0x1000n)).toBe(`0x${DATA.toString(16)}`);
  });

  test('with PARTID_MAX = 0 there is no VMS and nothing is fetched [5.6.1]', () => {
    const { ids, lab } = stream('NESTED', { S1MPAM: 1, VMSPtr: 0n }, CD_IDS, mpamCaps(0));
    expect(ids()).toEqual([0, 0]);
    expect(lab.t.event).toBe(0);
  });

  test('the map is cached by VMID: CMD_CFGI_VMS_PIDM of that VMID and CMD_CFGI_ALL drop it, CFGI_STE does not [5.6.2]', () => {
    const { ids, map, lab } = stream('NESTED', { S1MPAM: 1 }, CD_IDS);
    map(9, 33);
    ids();
    map(9, 34);
    expect(ids()[0]).toBe(33);
    lab.smmu.configCache.invalidateSte(5, false);
    lab.smmu.configCache.invalidateVmsPidm(6);
    expect(ids()[0]).toBe(33);
    lab.smmu.configCache.invalidateVmsPidm(7);
    expect(ids()[0]).toBe(34);
    map(9, 35);
    lab.smmu.configCache.invalidateAll();
    expect(ids()[0]).toBe(35);
  });

  test('a Translation Request that meets an abort: CA, recorded with REC_CFG_ATS only [3.9.1.2]', () => {
    const { lab } = stream('NESTED', { S1MPAM: 1, VMSPtr: 0x1000_0000n >> 12n, EATS: 'FULL' }, CD_IDS);
    expect(lab.go(5, 0x1000n, { access: Access.TranslationRequest })).toBe('AtsCa event=0x25 unrecorded S2=0');
    lab.regs.REC_CFG_ATS = true;
    expect(lab.go(5, 0x1000n, { access: Access.TranslationRequest })).toBe('AtsCa event=0x25 S2=0');
  });

  test('C_BAD_STREAMID and C_BAD_STE come first, everything of CDs after [7.3.22]', () => {
    const { lab } = stream('NESTED', { S1MPAM: 1, VMSPtr: 0x1000_0000n >> 12n, S1ContextPtr: 0x1000_0000n >> 6n });
    expect(lab.go(5, 0x1000n)).toBe('Abort event=0x25 S2=0');
    expect(lab.go(5, 0x1000n, { SSV: true, SubstreamID: 3 })).toBe('Abort event=0x25 S2=0');
  });
});

const withMpam = (MPAMIDR: SmmuConfig['MPAMIDR']): SmmuConfig => ({
  ...linuxNesting,
  IDR3: { ...linuxNesting.IDR3, MPAM: 1 },
  ...(MPAMIDR === undefined ? {} : { MPAMIDR }),
});

describe('registers [6.3.41 to 6.3.43]', () => {
  const r = (config = withMpam({ PARTID_MAX: 63, PMG_MAX: 3 })): Regs => new Regs(machineWith(config));

  test('MPAMIDR shows the configuration and is read-only; without MPAM none of the three exists', () => {
    const regs = r();
    regs.write(spec.MPAMIDR, 0xffffffff);
    expect(regs.read(spec.MPAMIDR)).toBe(0x0003003f);
    const none = r(linuxNesting);
    for (const one of [spec.GMPAM, spec.GBPMPAM]) {
      none.write(one, 0x80010001);
      expect(none.read(one)).toBe(0);
    }
  });

  test.each([spec.GMPAM, spec.GBPMPAM])('$name is taken with Update only, and not while one is under way', (one) => {
    const regs = new Regs(machineWith(withMpam({ PARTID_MAX: 63 }), { schedule: { mode: 'stepped' } }));
    regs.write(one, 0x00020003);
    expect(regs.read(one)).toBe(0);
    regs.write(one, 0xff020003);
    expect(regs.read(one) >>> 0).toBe(0x80020003);
    regs.write(one, 0x80040005);
    while (regs.machine.step());
    expect(regs.read(one)).toBe(0x00020003);
  });

  test('GBPMPAM goes with traffic while SMMUEN = 0, once its update is done', () => {
    const machine = machineWith(withMpam({ PARTID_MAX: 63, PMG_MAX: 3 }), { schedule: { mode: 'stepped' } });
    const regs = new Regs(machine);
    const ids = (): [number, number] => {
      const t = Object.assign(new Transaction(), { addrLo: 0x4000_0000 });
      machine.smmus[0]?.access(t);
      return [t.PARTID, t.PMG];
    };
    regs.write(spec.GBPMPAM, 0x80010007);
    expect(ids()).toEqual([0, 0]);
    while (machine.step());
    expect(ids()).toEqual([7, 1]);
    regs.write(spec.GBPMPAM, 0x80040040);
    while (machine.step());
    expect(ids()).toEqual([0, 0]);
  });
});

describe('configuration', () => {
  test('MPAMIDR needs IDR3.MPAM, and MPAM needs v3.2', () => {
    expect(() => machineWith({ ...linuxNesting, MPAMIDR: { PARTID_MAX: 1 } })).toThrow(/MPAMIDR/);
    const old = { ...linuxNesting, IDR3: { HAD: 1, XNX: 1, MPAM: 1 }, AIDR: { ArchMinorRev: 1 } };
    expect(() => machineWith(old)).toThrow(/IDR3.MPAM = 1 needs SMMUv3.2/);
  });

  test('CMD_CFGI_VMS_PIDM: CERROR_ILL without MPAM or with PARTID_MAX = 0 [4.3.5]', () => {
    const err = (config: SmmuConfig): number => {
      const regs = new Regs(machineWith(config));
      regs.start();
      regs.issue([0x0000_0007_0000_0007n, 0n]);
      return regs.err;
    };
    expect([err(linuxNesting), err(withMpam(undefined)), err(full)]).toEqual([1, 1, 0]);
  });
});
