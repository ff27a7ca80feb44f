import { describe, expect, test } from 'vitest';
import * as commands from '../../spec/commands.ts';
import type { Words } from '../../spec/layout.ts';
import { PCI_ATS, PCI_CAP_CONTROL, PCI_EXT_CAP_HEADER, PCI_EXT_CAPS, PCI_PRI } from '../../spec/pci-capabilities.ts';
import * as spec from '../../spec/registers.ts';
import { PRIQ } from '../hw/harness.ts';
import {
  bypass,
  CDTAB,
  cd,
  DATA,
  LAB_CONFIG,
  nested,
  page1,
  page2,
  S1ROOT,
  S2ROOT,
  SanitizerLab,
  s1,
  s2,
} from './lab.ts';

const IPA = 0x20_3000n;
const VMID = 3;
const SID = 0x10;

/** Endpoints with ATS at StreamIDs 0x10 and 0x11 (one device), and 0x12. */
class AtsLab extends SanitizerLab {
  constructor(options: ConstructorParameters<typeof SanitizerLab>[0] = {}, config = LAB_CONFIG) {
    super(options, config, {
      endpoints: [
        { name: 'dev10', streamIds: [0x10, 0x11], bdf: 0x10, ats: true, pri: true, ssidBits: 4 },
        { name: 'dev12', streamIds: [0x12], bdf: 0x12, ats: true },
      ],
    });
  }

  /** ATS of the first device. */
  ats(on: boolean): void {
    this.switch(ATS_ID, PCI_ATS.mask(['Enable'])[0] ?? 0, on);
  }

  /** A bit of the control word of an extended capability of the first device. */
  switch(id: number, enable: number, on: boolean): void {
    const { bus } = this.machine;
    for (let at = PCI_EXT_CAPS; at !== 0; ) {
      const header = Uint32Array.of(bus.pciRead32(0x10, at));
      if (PCI_EXT_CAP_HEADER.num(header, 'ID') === id) {
        const value = bus.pciRead32(0x10, at + PCI_CAP_CONTROL);
        bus.pciWrite32(0x10, at + PCI_CAP_CONTROL, on ? (value | enable) >>> 0 : (value & ~enable) >>> 0);
        return;
      }
      at = PCI_EXT_CAP_HEADER.num(header, 'Next');
    }
    throw new Error(`no capability ${id}`);
  }
}

const ATS_ID = PCI_EXT_CAP_HEADER.field('ID').values?.ATS ?? -1;
const PRI_ID = PCI_EXT_CAP_HEADER.field('ID').values?.PRI ?? -1;
const PRI_CONFIG = {
  ...LAB_CONFIG,
  IDR0: { ...LAB_CONFIG.IDR0, PRI: 1 },
  IDR1: { ...LAB_CONFIG.IDR1, PRIQS: 8 },
} as const;

const atcInv = (more: Parameters<typeof commands.CMD_ATC_INV.encode>[0] = {}): Words =>
  commands.CMD_ATC_INV.encode({ StreamID: SID, Address: IPA >> 12n, ...more });
const atcAll = (StreamID = SID): Words => commands.CMD_ATC_INV.encode({ StreamID, Size: 52 });
const s2Ipa = (): Words => commands.CMD_TLBI_S2_IPA.encode({ VMID, Address: IPA >> 12n, Leaf: 1 });
const nhAll = (): Words => commands.CMD_TLBI_NH_ALL.encode({ VMID });
const EATS = { EATS: 'FULL' } as const;

/** Stage 2 with ATS in use, one page at IPA. */
function stage2(options: ConstructorParameters<typeof SanitizerLab>[0] = {}): AtsLab {
  const lab = new AtsLab(options);
  lab.boot();
  lab.map(S2ROOT, IPA, page2(DATA));
  lab.install(SID, s2(VMID, S2ROOT, EATS));
  lab.ats(true);
  return lab;
}

function unmap(lab: AtsLab, root: bigint, ...lists: readonly (readonly Words[])[]): string[] {
  lab.put(root, 3, IPA, 0n);
  for (const list of lists) lab.commands(...list);
  lab.freePage(DATA);
  return lab.rules;
}

describe('a page is given back [3.9.1]', () => {
  test('TLBI, SYNC, ATC_INV, SYNC', () => {
    expect(unmap(stage2(), S2ROOT, [s2Ipa()], [atcInv()])).toEqual([]);
  });

  test('ATS-1: no ATC_INV, or of another page', () => {
    expect(unmap(stage2(), S2ROOT, [s2Ipa()])).toEqual(['ATS-1']);
    expect(unmap(stage2(), S2ROOT, [s2Ipa()], [atcInv({ Address: 1 })])).toEqual(['ATS-1']);
  });

  test('ATS-1: reported done', () => {
    const lab = stage2();
    lab.put(S2ROOT, 3, IPA, 0n);
    lab.commands(s2Ipa());
    lab.done('unmap');
    expect(lab.rules).toEqual(['ATS-1']);
  });

  test('with ATS off in the endpoint nothing is owed', () => {
    const lab = new AtsLab();
    lab.boot();
    lab.map(S2ROOT, IPA, page2(DATA));
    lab.install(SID, s2(VMID));
    expect(unmap(lab, S2ROOT, [s2Ipa()])).toEqual([]);
  });

  test('ATS-2: ATC_INV first', () => {
    expect(unmap(stage2(), S2ROOT, [atcInv()], [s2Ipa()])).toEqual(['ATS-2']);
  });

  test('ATS-2: both under one CMD_SYNC, strict and lenient', () => {
    expect(unmap(stage2(), S2ROOT, [s2Ipa(), atcInv()])).toEqual(['ATS-2']);
    expect(unmap(stage2({ ordering: 'lenient' }), S2ROOT, [s2Ipa(), atcInv()])).toEqual([]);
  });

  test('ATS-8: the time-out was skipped', () => {
    const lab = stage2();
    const unit = lab.machine.endpoint('dev10').ats;
    if (unit === null) throw new Error('no ATS');
    unit.hang = true;
    lab.put(S2ROOT, 3, IPA, 0n);
    lab.commands(s2Ipa());
    lab.commands(atcInv());
    lab.regs.acknowledge();
    lab.freePage(DATA);
    expect(lab.rules).toEqual(['ATS-8']);
  });

  test('ATS-8: the time-out was heard: ATS off in the endpoint, EATS=0, and CR0.ATSCHK refuses what it holds', () => {
    const cut = (ste: (lab: AtsLab) => void, off: boolean, ATSCHK = true): string[] => {
      const lab = new AtsLab();
      lab.boot();
      if (ATSCHK) lab.enable(spec.CR0.bit('ATSCHK'));
      lab.map(S2ROOT, IPA, page2(DATA));
      lab.install(SID, s2(VMID, S2ROOT, EATS));
      lab.ats(true);
      const unit = lab.machine.endpoint('dev10').ats;
      if (unit === null) throw new Error('no ATS');
      unit.hang = true;
      lab.put(S2ROOT, 3, IPA, 0n);
      lab.commands(s2Ipa());
      lab.commands(atcInv());
      lab.regs.acknowledge();
      if (off) lab.ats(false);
      ste(lab);
      lab.freePage(DATA);
      return lab.rules.filter((rule) => rule !== 'ATS-4');
    };
    const aborts = (lab: AtsLab): void => lab.remove(SID);
    expect(cut(aborts, true)).toEqual([]);
    expect(cut(aborts, false)).toEqual(['ATS-8']);
    expect(cut(() => {}, true)).toEqual(['ATS-8']);
    expect(cut(aborts, true, false)).toEqual(['ATS-8']);
  });

  test('ATS-9: with a SubstreamID', () => {
    expect(unmap(stage2(), S2ROOT, [s2Ipa()], [atcInv({ SSV: 1, SubstreamID: 5 })])).toEqual(['ATS-9']);
  });

  test('ATS-10: a range under nesting; everything is right', () => {
    const both = (command: Words): string[] => {
      const lab = new AtsLab();
      lab.boot();
      lab.map(S2ROOT, IPA, page2(DATA));
      lab.install(SID, nested(VMID, S2ROOT, EATS));
      lab.ats(true);
      return unmap(lab, S2ROOT, [s2Ipa()], [nhAll()], [command]);
    };
    expect(both(atcInv())).toEqual(['ATS-10']);
    expect(both(atcAll())).toEqual([]);
  });

  test('ATS-10: a range is right for a stream with stage 2 alone, though a nested one shares its VMID', () => {
    const lab = stage2();
    lab.install(0x12, nested(VMID, S2ROOT));
    expect(unmap(lab, S2ROOT, [s2Ipa()], [nhAll()], [atcInv()])).toEqual([]);
  });

  test('ATS-14: one of two StreamIDs of a device', () => {
    const lab = stage2();
    lab.install(0x11, s2(VMID, S2ROOT, EATS));
    expect(unmap(lab, S2ROOT, [s2Ipa()], [atcInv()])).toEqual(['ATS-14']);
  });

  test('the PASID of a CD: its own ATC_INV, or one for all', () => {
    const pasid = (command: Words): string[] => {
      const lab = new AtsLab();
      lab.boot();
      lab.map(S1ROOT, IPA, page1(DATA));
      lab.store(lab.cdAt(0), cd(6, S1ROOT + 0x1_0000n));
      lab.store(lab.cdAt(5), cd(7));
      lab.install(SID, s1(CDTAB, { S1CDMax: 3, S1DSS: 'SSID0', ...EATS }));
      lab.ats(true);
      const tlbi = commands.CMD_TLBI_NH_VA.encode({ ASID: 7, Address: IPA >> 12n, Leaf: 1 });
      return unmap(lab, S1ROOT, [tlbi], [command]);
    };
    expect(pasid(atcInv({ SSV: 1, SubstreamID: 5 }))).toEqual([]);
    expect(pasid(atcInv())).toEqual([]);
    expect(pasid(atcInv({ SSV: 1, SubstreamID: 4 }))).toEqual(['ATS-1']);
  });
});

describe('turning ATS on and off [3.9.2]', () => {
  test('ATS-3: before the STE', () => {
    const lab = new AtsLab();
    lab.boot();
    lab.install(SID, s2(VMID));
    lab.ats(true);
    expect(lab.rules).toEqual(['ATS-3']);
  });

  test('ATS-3: before the CFGI of EATS', () => {
    const lab = new AtsLab();
    lab.boot();
    lab.install(SID, s2(VMID));
    lab.storeWords(lab.ste(SID), s2(VMID, S2ROOT, EATS), [1]);
    lab.ats(true);
    expect(lab.rules).toEqual(['ATS-3']);
  });

  test('an aborting STE is only noted by hardware', () => {
    const lab = new AtsLab();
    lab.boot();
    lab.ats(true);
    expect(lab.rules).toEqual([]);
  });

  test('ATS-4: the STE goes to bypass while ATS is on', () => {
    const lab = stage2();
    lab.storeWords(lab.ste(SID), bypass(), [0]);
    lab.cfgiSte(SID);
    expect(lab.rules).toEqual(['ATS-4']);
  });

  test('endpoint off, STE, CFGI, ATC_INV, as Linux does', () => {
    const lab = stage2();
    lab.ats(false);
    lab.storeWords(lab.ste(SID), bypass(), [0]);
    lab.cfgiSte(SID);
    lab.commands(atcAll());
    lab.note('stream', 'give', SID, 'vm1', 'smmu0');
    expect(lab.rules).toEqual([]);
  });

  test('ATS-5: full to split-stage', () => {
    const lab = new AtsLab();
    lab.boot();
    lab.install(SID, nested(VMID, S2ROOT, EATS));
    lab.storeWords(lab.ste(SID), nested(VMID, S2ROOT, { EATS: 'SPLIT' }), [1]);
    lab.cfgiSte(SID);
    expect(lab.rules).toEqual(['ATS-5']);
  });

  test('ATS-6: ATSCHK changed under streams with ATS', () => {
    const lab = stage2();
    lab.enable(spec.CR0.bit('ATSCHK'));
    expect(lab.rules).toEqual(['ATS-6']);
  });

  test('ATS-7: SMMUEN cleared, or ATC_INV sent without it', () => {
    const lab = stage2();
    lab.ats(false);
    lab.commands(atcAll());
    lab.disable();
    expect(lab.rules).toEqual([]);
    lab.commands(atcAll());
    expect(lab.rules).toEqual(['ATS-7']);
    const other = stage2();
    other.disable();
    expect(new Set(other.rules)).toEqual(new Set(['ATS-7']));
  });

  test('ATS-12: given to another owner with translations in the endpoint', () => {
    const lab = stage2();
    lab.note('stream', 'give', SID, 'vm1', 'smmu0');
    expect(lab.rules).toEqual(['ATS-12']);
  });
});

describe('ATS-13: page requests', () => {
  const asked = (answer: boolean): string[] => {
    const lab = new AtsLab({}, PRI_CONFIG);
    lab.boot();
    lab.regs.write64(spec.PRIQ_BASE, PRIQ | 4n);
    lab.enable(spec.CR0.bit('PRIQEN'));
    lab.install(SID, s2(VMID, S2ROOT, EATS));
    lab.switch(PRI_ID, PCI_PRI.mask(['Enable'])[0] ?? 0, true);
    const asking = {
      StreamID: SID,
      SubstreamID: -1,
      address: IPA,
      read: true,
      write: false,
      execute: false,
      privileged: false,
    };
    lab.machine.endpoint('dev10').ats?.requestPage(asking, () => {});
    if (answer) lab.commands(commands.CMD_PRI_RESP.encode({ StreamID: SID, PRGIndex: 0, Resp: 'Success' }));
    lab.note('stream', 'give', SID, 'vm1', 'smmu0');
    return lab.rules;
  };

  test('unanswered when the stream is given away', () => {
    expect(asked(false)).toEqual(['ATS-13']);
  });

  test('answered', () => {
    expect(asked(true)).toEqual([]);
  });
});
