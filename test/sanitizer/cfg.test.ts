import { describe, expect, test } from 'vitest';
import * as commands from '../../spec/commands.ts';
import { L1STD } from '../../spec/l1std.ts';
import * as spec from '../../spec/registers.ts';
import { STE } from '../../spec/ste.ts';
import {
  abort,
  bypass,
  CDTAB,
  cd,
  L2TAB,
  LAB_CONFIG,
  nested,
  S1ROOT,
  S2ROOT,
  SanitizerLab,
  STRTAB,
  s1,
  s2,
} from './lab.ts';

const ROOT2 = S2ROOT + 0x1_0000n;
const ALL = [1, 2, 3, 4, 5, 6, 7];

const booted = (): SanitizerLab => new SanitizerLab().boot();

/** Stream 0x10 with stage 1 alone, ASID 7. */
function stage1(): SanitizerLab {
  const lab = booted();
  lab.store(lab.cdAt(0), cd(7));
  lab.install(0x10, s1());
  return lab;
}

describe('CFG-1: relied on before its CFGI', () => {
  test('an STE changed, DMA without CFGI', () => {
    const lab = booted();
    lab.install(0x10, s2(3));
    lab.storeWords(lab.ste(0x10), bypass(), [0]);
    lab.dma(0x10);
    expect(lab.rules).toEqual(['CFG-1']);
  });

  test('a CD changed, no CFGI_CD before DMA', () => {
    const lab = stage1();
    lab.storeWords(lab.cdAt(0), cd(8), [0]);
    lab.dma(0x10);
    expect(lab.rules).toEqual(['CFG-1']);
  });

  test('an attach reported done; reported once', () => {
    const lab = booted();
    lab.storeWords(lab.ste(0x10), bypass(), [0]);
    lab.done('attach', 0x10);
    lab.done('attach', 0x10);
    expect(lab.rules).toEqual(['CFG-1']);
  });

  test('a CFGI of another stream does not count', () => {
    const lab = booted();
    lab.storeWords(lab.ste(0x10), bypass(), [0]);
    lab.cfgiSte(0x11);
    lab.done('attach', 0x10);
    expect(lab.rules).toEqual(['CFG-1']);
  });

  test.each([
    ['CFGI_STE', commands.CMD_CFGI_STE.encode({ StreamID: 0x10, Leaf: 1 })],
    ['CFGI_STE_RANGE', commands.CMD_CFGI_STE_RANGE.encode({ StreamID: 0x12, Range: 1 })],
    ['CFGI_ALL', commands.encodeCommand('CMD_CFGI_ALL')],
  ])('%s with its CMD_SYNC makes it good', (_, command) => {
    const lab = booted();
    lab.storeWords(lab.ste(0x10), bypass(), [0]);
    lab.commands(command);
    lab.dma(0x10);
    expect(lab.rules).toEqual([]);
  });

  test('bits that hardware does not use may change', () => {
    const lab = booted();
    lab.install(0x10, bypass());
    lab.storeWords(lab.ste(0x10), s2(3), [2, 3]);
    lab.dma(0x10);
    expect(lab.rules).toEqual([]);
  });

  test('words written before SMMUEN, or before any pointer, need nothing [3.21.3.1 note]', () => {
    const lab = stage1();
    lab.dma(0x10);
    expect(lab.rules).toEqual([]);
  });
});

describe('updates of STEs', () => {
  test('CFG-2: V=0 and new words under one CFGI', () => {
    const lab = booted();
    lab.install(0x10, s2(3));
    const target = s2(4, ROOT2);
    lab.storeWords(lab.ste(0x10), abort().fill(0), [0]);
    lab.storeWords(lab.ste(0x10), target, [2, 3]);
    lab.cfgiSte(0x10);
    expect(lab.rules).toEqual(['CFG-2']);
  });

  test('CFG-3: V=1 before the CFGI of the other words', () => {
    const lab = booted();
    lab.install(0x10, s2(3));
    lab.storeWords(lab.ste(0x10), STE.zero(), [0]);
    lab.cfgiSte(0x10);
    lab.storeWords(lab.ste(0x10), s2(4, ROOT2), [2, 3]);
    lab.storeWords(lab.ste(0x10), s2(4, ROOT2), [0]);
    lab.cfgiSte(0x10);
    expect(lab.rules).toEqual(['CFG-3', 'VMID-2'].slice(0, 1));
  });

  test('CFG-4: two used words while V stays 1', () => {
    const lab = booted();
    lab.install(0x10, s2(3));
    lab.storeWords(lab.ste(0x10), s2(4, ROOT2), [2, 3]);
    lab.cfgiSte(0x10);
    expect(lab.rules).toEqual(['CFG-4']);
    const [finding] = lab.sanitizer.report().findings;
    expect(finding?.message).toContain('STE 0x10 changed in two or more used words while V=1');
    expect(finding?.message).toContain('S2VMID=0x');
  });

  test('V=0, CFGI, the rest, CFGI, V=1, CFGI is right [3.21.3.1]', () => {
    const lab = booted();
    lab.install(0x10, s2(3));
    lab.storeWords(lab.ste(0x10), STE.zero(), [0]);
    lab.cfgiSte(0x10);
    lab.vmall(3);
    lab.storeWords(lab.ste(0x10), s2(4, ROOT2), ALL);
    lab.cfgiSte(0x10);
    lab.storeWords(lab.ste(0x10), s2(4, ROOT2), [0]);
    lab.cfgiSte(0x10);
    lab.dma(0x10);
    expect(lab.rules).toEqual([]);
  });

  test('stage 2 to nested: MEV, then word 0, then the rest, is hitless', () => {
    const lab = booted();
    lab.install(0x10, s2(3));
    const target = nested(3, S2ROOT, { MEV: 1 });
    lab.storeWords(lab.ste(0x10), target, [1]);
    lab.cfgiSte(0x10);
    lab.storeWords(lab.ste(0x10), target, [0]);
    lab.cfgiSte(0x10);
    lab.dma(0x10);
    expect(lab.rules).toEqual([]);
  });

  test('CFG-5: an ILLEGAL STE', () => {
    const lab = booted();
    lab.install(0x10, s2(3, S2ROOT, { S2T0SZ: 5 }));
    expect(lab.rules).toEqual(['CFG-5']);
  });

  test('CFG-5: an ILLEGAL state on the way: stage 1 with the STRW of before', () => {
    const lab = booted();
    lab.install(0x10, STE.encode({ V: 1, Config: 'BYPASS', SHCFG: 'INCOMING', STRW: 'EL3' }));
    expect(lab.rules).toEqual([]);
    lab.storeWords(lab.ste(0x10), s1(CDTAB, { SHCFG: 'INCOMING' }), [0, 1]);
    lab.cfgiSte(0x10);
    expect(lab.rules).toEqual(['CFG-5']);
  });

  test("an ILLEGAL field of the VM's in a nested STE is the VM's affair", () => {
    const lab = booted();
    lab.install(0x10, nested(3, S2ROOT, { S1CDMax: 31 }));
    expect(lab.rules).toEqual([]);
  });

  test('a STE wider than the SMMU: VMID-9', () => {
    const config = { ...LAB_CONFIG, IDR0: { ...LAB_CONFIG.IDR0, VMID16: 'BITS_8' } } as const;
    const lab = new SanitizerLab({}, config).boot();
    lab.install(0x10, s2(0x103));
    expect(lab.rules).toEqual(['VMID-9']);
  });
});

describe('updates of CDs', () => {
  test('CFG-4: ASID and TTB of a valid CD', () => {
    const lab = stage1();
    lab.storeWords(lab.cdAt(0), cd(8, S1ROOT + 0x1_0000n), [0, 1]);
    lab.cfgiCd(0x10);
    expect(lab.rules).toEqual(['CFG-4']);
  });

  test('V=0, CFGI, words, CFGI, V=1, CFGI is right', () => {
    const lab = stage1();
    const target = cd(8, S1ROOT + 0x1_0000n);
    lab.storeWords(lab.cdAt(0), STE.zero(), [0]);
    lab.cfgiCd(0x10);
    lab.storeWords(lab.cdAt(0), target, ALL);
    lab.cfgiCd(0x10);
    lab.storeWords(lab.cdAt(0), target, [0]);
    lab.cfgiCd(0x10);
    lab.dma(0x10);
    expect(lab.rules).toEqual([]);
  });

  test('CFG-8: a shared CD invalidated for one of two streams', () => {
    const lab = stage1();
    lab.install(0x11, s1());
    lab.storeWords(lab.cdAt(0), STE.zero(), [0]);
    lab.cfgiCd(0x10);
    lab.dma(0x10);
    expect(lab.rules).toEqual(['CFG-8']);
    expect(lab.sanitizer.report().findings[0]?.subject.StreamID).toBe(0x11);
  });

  test('invalidated for both it is right', () => {
    const lab = stage1();
    lab.install(0x11, s1());
    lab.storeWords(lab.cdAt(0), STE.zero(), [0]);
    lab.cfgiCd(0x10);
    lab.cfgiCd(0x11);
    lab.dma(0x10);
    expect(lab.rules).toEqual([]);
  });

  test('a new CD of a table in use needs CFGI_CD before V=1 is relied on', () => {
    const lab = booted();
    lab.store(lab.cdAt(0), cd(7));
    lab.install(0x10, s1(CDTAB, { S1CDMax: 3, S1DSS: 'SSID0' }));
    lab.installCd(0x10, 5, cd(9));
    lab.done('attach', 0x10);
    expect(lab.rules).toEqual([]);
    lab.storeWords(lab.cdAt(6), cd(10), [1, 3]);
    lab.storeWords(lab.cdAt(6), cd(10), [0]);
    lab.cfgiCd(0x10, 6);
    expect(lab.rules).toEqual(['CFG-3']);
  });
});

describe('CFG-6: level 1 tables', () => {
  const replaced = (leaf: number): SanitizerLab => {
    const lab = new SanitizerLab().bootTwoLevel();
    lab.fillAbort(L2TAB + 0x1_0000n, 64);
    lab.store(STRTAB, L1STD.encode({ Span: 7, L2Ptr: (L2TAB + 0x1_0000n) >> 6n }));
    lab.cfgiSte(0x10, leaf);
    return lab;
  };

  test('a replaced level 2 table given back after CFGI with Leaf=1', () => {
    const lab = replaced(1);
    lab.freePage(L2TAB);
    expect(lab.rules).toEqual(['CFG-6']);
  });

  test('Leaf=0 makes it good', () => {
    const lab = replaced(0);
    lab.freePage(L2TAB);
    expect(lab.rules).toEqual([]);
  });

  const SECOND = 0x40;
  const added = (leaf: number): SanitizerLab => {
    const lab = new SanitizerLab().bootTwoLevel();
    lab.fillAbort(L2TAB + 0x1_0000n, 64);
    lab.store(STRTAB + 8n, L1STD.encode({ Span: 7, L2Ptr: (L2TAB + 0x1_0000n) >> 6n }));
    lab.cfgiSte(SECOND, leaf);
    lab.done('attach', SECOND);
    return lab;
  };

  test('an L1STD that becomes active: a Span of 0 may be cached, and Leaf=1 keeps it (5.1.1)', () => {
    expect(added(1).rules).toEqual(['CFG-6']);
    expect(added(0).rules).toEqual([]);
  });
});

describe('CFG-9: what leads to a structure becomes visible before it', () => {
  const waiting = (at: bigint): SanitizerLab => {
    const lab = new SanitizerLab().bootTwoLevel();
    lab.machine.watch.overtakes = (hi, lo, bytes) => {
      const first = (BigInt(hi) << 32n) | BigInt(lo >>> 0);
      return at >= first && at < first + BigInt(bytes);
    };
    lab.fillAbort(L2TAB + 0x1_0000n, 64);
    lab.store(STRTAB + 8n, L1STD.encode({ Span: 7, L2Ptr: (L2TAB + 0x1_0000n) >> 6n }));
    lab.cfgiSte(0x40, 0);
    return lab;
  };

  test('an L1STD, and a store to its last STE is still on its way', () => {
    expect(waiting(L2TAB + 0x1_0000n + 63n * 64n).rules).toEqual(['CFG-9']);
  });

  test('stores elsewhere may wait', () => {
    expect(waiting(L2TAB + 0x1_0000n + 64n * 64n).rules).toEqual([]);
  });
});

test('CFG-7: the CD table given back while an STE leads to it', () => {
  const lab = stage1();
  lab.freePage(CDTAB);
  expect(lab.rules).toEqual(['CFG-7']);
});

test('CFG-7: not after the STE is gone from every cache', () => {
  const lab = stage1();
  lab.remove(0x10);
  lab.freePage(CDTAB);
  expect(lab.rules).toEqual([]);
});

describe('one tag, two meanings', () => {
  test('CFG-10: two stage 2 tables under one VMID', () => {
    const lab = booted();
    lab.install(0x10, s2(3));
    lab.install(0x11, s2(3, ROOT2));
    expect(lab.rules).toEqual(['CFG-10']);
  });

  test('stage 2 and nested on one table under one VMID are right', () => {
    const lab = booted();
    lab.install(0x10, s2(3));
    lab.install(0x11, nested(3));
    expect(lab.rules).toEqual([]);
  });

  test('CFG-11: two CDs with one ASID and different tables', () => {
    const lab = stage1();
    lab.store(lab.cdAt(0, CDTAB + 0x1000n), cd(7, S1ROOT + 0x1_0000n));
    lab.install(0x11, s1(CDTAB + 0x1000n));
    lab.dma(0x11);
    expect(lab.rules).toEqual(['CFG-11']);
  });

  test('equal CDs share an ASID', () => {
    const lab = stage1();
    lab.store(lab.cdAt(0, CDTAB + 0x1000n), cd(7));
    lab.install(0x11, s1(CDTAB + 0x1000n));
    lab.dma(0x11);
    expect(lab.rules).toEqual([]);
  });

  test('CFG-12: stage 1 alone and nested share a VMID', () => {
    const lab = stage1();
    lab.install(0x11, nested(0));
    expect(lab.rules).toEqual(['CFG-12']);
  });
});

describe('CFG-14: a tag that stays while its configuration changes', () => {
  const changed = (): SanitizerLab => {
    const lab = booted();
    lab.install(0x10, s2(3));
    lab.storeWords(lab.ste(0x10), s2(3, ROOT2), [3]);
    lab.cfgiSte(0x10);
    return lab;
  };

  test('stage 2 table without TLBI', () => {
    const lab = changed();
    lab.dma(0x10);
    expect(lab.rules).toEqual(['CFG-14']);
  });

  test('with TLBI after the CFGI', () => {
    const lab = changed();
    lab.vmall(3);
    lab.dma(0x10);
    expect(lab.rules).toEqual([]);
  });

  test('with TLBI before the CFGI', () => {
    const lab = booted();
    lab.install(0x10, s2(3));
    lab.storeWords(lab.ste(0x10), s2(3, ROOT2), [3]);
    lab.vmall(3);
    lab.cfgiSte(0x10);
    lab.dma(0x10);
    expect(lab.rules).toEqual(['CFG-14']);
  });

  test('a CD that keeps its ASID', () => {
    const lab = stage1();
    lab.storeWords(lab.cdAt(0), cd(7, S1ROOT + 0x1_0000n), [1]);
    lab.cfgiCd(0x10);
    lab.dma(0x10);
    expect(lab.rules).toEqual(['CFG-14']);
  });

  test('a CD that keeps its ASID, with NH_ASID', () => {
    const lab = stage1();
    lab.storeWords(lab.cdAt(0), cd(7, S1ROOT + 0x1_0000n), [1]);
    lab.cfgiCd(0x10);
    lab.commands(commands.CMD_TLBI_NH_ASID.encode({ ASID: 7 }));
    lab.dma(0x10);
    expect(lab.rules).toEqual([]);
  });
});

describe('registers', () => {
  test('CFG-18: STRTAB_BASE while SMMUEN=1', () => {
    const lab = booted();
    lab.regs.write64(spec.STRTAB_BASE, STRTAB + 0x10_0000n);
    expect(lab.rules).toEqual(['CFG-18']);
  });

  test('CFG-18: changed while SMMUEN=0, no CFGI_ALL', () => {
    const lab = booted();
    lab.disable();
    lab.fillAbort(STRTAB + 0x10_0000n, 256);
    lab.regs.write64(spec.STRTAB_BASE, STRTAB + 0x10_0000n);
    lab.enable();
    expect(lab.rules).toEqual(['CFG-18']);
  });

  test('CFG-18: with CFGI_ALL it is right', () => {
    const lab = booted();
    lab.disable();
    lab.fillAbort(STRTAB + 0x10_0000n, 256);
    lab.regs.write64(spec.STRTAB_BASE, STRTAB + 0x10_0000n);
    lab.invalidateAll();
    lab.enable();
    expect(lab.rules).toEqual([]);
  });

  const bootWith = (...list: readonly (keyof typeof commands.COMMANDS | 'CMD_CFGI_ALL')[]): string[] => {
    const lab = new SanitizerLab();
    lab.fillAbort(STRTAB, 256);
    lab.regs.start(8);
    lab.regs.write64(spec.STRTAB_BASE, STRTAB);
    lab.regs.write(spec.STRTAB_BASE_CFG, 8);
    for (const name of list) lab.commands(commands.encodeCommand(name));
    lab.enable();
    return lab.rules;
  };

  test('CFG-19: SMMUEN without CFGI_ALL, without TLBI, without EL2_ALL, or with TLBI first', () => {
    expect(bootWith()).toEqual(['CFG-19']);
    expect(bootWith('CMD_CFGI_ALL')).toEqual(['CFG-19']);
    expect(bootWith('CMD_CFGI_ALL', 'CMD_TLBI_NSNH_ALL')).toEqual(['CFG-19']);
    expect(bootWith('CMD_TLBI_EL2_ALL', 'CMD_TLBI_NSNH_ALL', 'CMD_CFGI_ALL')).toEqual(['CFG-19']);
    expect(bootWith('CMD_CFGI_ALL', 'CMD_TLBI_EL2_ALL', 'CMD_TLBI_NSNH_ALL')).toEqual([]);
  });

  test('CFG-16: E2H changed between two times of SMMUEN', () => {
    const lab = booted();
    lab.disable();
    lab.regs.write(spec.CR2, spec.CR2.bit('E2H'));
    lab.enable();
    expect(lab.rules).toEqual(['CFG-16']);
  });
});

describe('one CD table, one StreamWorld; one CONT block, one STE', () => {
  test('CFG-13: EL1 and EL2 streams reach one CD table', () => {
    const lab = stage1();
    lab.install(0x11, s1(CDTAB, { STRW: 'EL2' }));
    expect(lab.rules).toEqual(['CFG-13']);
  });

  test('CFG-15: a stream goes to EL2 and back, its table changed, the tag was never invalidated', () => {
    const lab = stage1();
    lab.remove(0x10);
    lab.store(lab.cdAt(0, CDTAB + 0x1000n), cd(7));
    lab.install(0x10, s1(CDTAB + 0x1000n, { STRW: 'EL2' }));
    lab.remove(0x10);
    lab.store(lab.cdAt(0), cd(7, S1ROOT + 0x1_0000n));
    lab.install(0x10, s1());
    expect(lab.rules).toEqual(['CFG-15']);
  });

  test('CFG-17: a block of two with different STEs', () => {
    const lab = booted();
    const block = bypass();
    STE.set(block, 'CONT', 1);
    lab.install(0x10, block);
    lab.dma(0x10);
    expect(lab.rules).toEqual(['CFG-17']);
    const equal = booted();
    equal.install(0x11, bypass());
    equal.install(0x10, block);
    equal.dma(0x10);
    expect(equal.rules).toEqual([]);
  });
});

describe('CFG-9: a CFGI that overtakes the store', () => {
  const late = (barrier: boolean): string[] => {
    const lab = new SanitizerLab({}, undefined, { schedule: { mode: 'seeded', seed: 3 } });
    lab.boot();
    const { bus } = lab.machine;
    const prod = lab.regs.read(spec.CMDQ_PROD);
    const slot = lab.cmdq + BigInt((prod & 0xff) * 16);
    // The command goes to memory past the store buffer; PROD is written without the order that writel has.
    for (const [i, words] of [
      commands.CMD_CFGI_STE.encode({ StreamID: 0x10, Leaf: 1 }),
      commands.CMD_SYNC.encode(),
    ].entries())
      for (const half of [0, 1])
        lab.machine.memory.write64(
          slot + BigInt(16 * i + 8 * half),
          (BigInt(words[2 * half + 1] ?? 0) << 32n) | BigInt(words[2 * half] ?? 0),
        );
    lab.storeWords(lab.ste(0x10), bypass(), [0]);
    if (barrier) bus.dmaWmb();
    bus.writelRelaxed(lab.regs.address(spec.CMDQ_PROD), (prod + 2) & 0x1ff);
    lab.machine.drain();
    bus.mb();
    return lab.rules;
  };

  test('without a barrier', () => {
    expect(late(false)).toEqual(['CFG-9']);
  });

  test('with one', () => {
    expect(late(true)).toEqual([]);
  });
});

describe('CFG-21: a stream of a VM is not left open', () => {
  test('in bypass', () => {
    const lab = booted();
    lab.install(0x10, bypass());
    lab.note('stream', 'give', 0x10, 'vm', 'smmu0');
    lab.done('attach', 0x10);
    expect(lab.rules).toEqual(['CFG-21']);
  });

  test('behind its own stage 2', () => {
    const lab = booted();
    lab.note('stream', 'give', 0x10, 'vm', 'smmu0');
    lab.install(0x10, s2(3));
    lab.done('attach', 0x10);
    expect(lab.rules).toEqual([]);
  });
});

test('DET-6: a detach reported done before the CFGI of its STE', () => {
  const lab = booted();
  lab.install(0x10, s2(3));
  lab.storeWords(lab.ste(0x10), abort(), [0]);
  lab.done('detach', 0x10);
  expect(lab.rules).toEqual(['DET-6']);
});
