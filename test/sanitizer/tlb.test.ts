import { describe, expect, test } from 'vitest';
import * as commands from '../../spec/commands.ts';
import type { Words } from '../../spec/layout.ts';
import { linuxNesting, type SmmuConfig } from '../../src/hw/index.ts';
import {
  block2,
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
  tableDescriptor,
} from './lab.ts';

const IPA = 0x20_3000n;
const VMID = 3;

const s2Ipa = (more: Parameters<typeof commands.CMD_TLBI_S2_IPA.encode>[0] = {}): Words =>
  commands.CMD_TLBI_S2_IPA.encode({ VMID, Address: IPA >> 12n, Leaf: 1, ...more });
const nhAll = (vmid = VMID): Words => commands.CMD_TLBI_NH_ALL.encode({ VMID: vmid });

/** Stream 0x10 translates by stage 2 with one page at IPA. */
function stage2(
  options: ConstructorParameters<typeof SanitizerLab>[0] = {},
  config: SmmuConfig = LAB_CONFIG,
): SanitizerLab {
  const lab = new SanitizerLab(options, config).boot();
  lab.map(S2ROOT, IPA, page2(DATA));
  lab.install(0x10, s2(VMID));
  return lab;
}

/** As {@link stage2}, and a nested stream on the same VMID. */
function withNested(options: ConstructorParameters<typeof SanitizerLab>[0] = {}): SanitizerLab {
  const lab = stage2(options);
  lab.install(0x11, nested(VMID));
  return lab;
}

/** Stream 0x10 with stage 1 alone, ASID 7, one page at IPA. */
function stage1(leaf = page1(DATA)): SanitizerLab {
  const lab = new SanitizerLab().boot();
  lab.map(S1ROOT, IPA, leaf);
  lab.store(lab.cdAt(0), cd(7));
  lab.install(0x10, s1());
  return lab;
}

const nhVa = (more: Parameters<typeof commands.CMD_TLBI_NH_VA.encode>[0] = {}): Words =>
  commands.CMD_TLBI_NH_VA.encode({ ASID: 7, Address: IPA >> 12n, Leaf: 1, ...more });

/** Unmaps, sends, and gives the page back. */
function unmap(lab: SanitizerLab, root: bigint, ...lists: readonly (readonly Words[])[]): string[] {
  lab.put(root, 3, IPA, 0n);
  for (const list of lists) lab.commands(...list);
  lab.freePage(DATA);
  return lab.rules;
}

describe('a page is given back', () => {
  test('TLB-1: without any invalidation', () => {
    const lab = stage2();
    expect(unmap(lab, S2ROOT)).toEqual(['TLB-1']);
    const [finding] = lab.sanitizer.report().findings;
    expect(finding?.message).toBe(
      'smmu0 VMID 3: page 0x40800000, input 0x203000, was given back while the TLB may still lead to it: no TLBI that covers it has completed',
    );
    expect(finding?.subject).toEqual({ smmu: 'smmu0', VMID: 3, address: S2ROOT + 0x5018n });
    expect(finding?.history.some((line) => line.includes('store 0x40505018 = 0x0000000000000000'))).toBe(true);
  });

  test('TLB-1: an unmap reported done', () => {
    const lab = stage2();
    lab.put(S2ROOT, 3, IPA, 0n);
    lab.done('unmap');
    expect(lab.rules).toEqual(['TLB-1']);
  });

  test('TLB-1: another address', () => {
    expect(unmap(stage2(), S2ROOT, [s2Ipa({ Address: (IPA >> 12n) + 1n })])).toEqual(['TLB-1']);
  });

  test.each([
    ['S2_IPA', s2Ipa()],
    ['S2_IPA over a range', s2Ipa({ Address: 0x200n, NUM: 0, SCALE: 9, TG: '4KB', TTL: 'LEVEL_3' })],
    ['S12_VMALL', commands.CMD_TLBI_S12_VMALL.encode({ VMID })],
    ['NSNH_ALL', commands.CMD_TLBI_NSNH_ALL.encode()],
  ])('%s makes it good', (_, command) => {
    expect(unmap(stage2(), S2ROOT, [command])).toEqual([]);
  });

  test('the pages beside it stay stale', () => {
    const lab = stage2();
    lab.put(S2ROOT, 3, IPA + 0x1000n, page2(DATA + 0x1000n));
    lab.put(S2ROOT, 3, IPA, 0n);
    lab.put(S2ROOT, 3, IPA + 0x1000n, 0n);
    lab.commands(s2Ipa());
    lab.freePage(DATA);
    expect(lab.rules).toEqual([]);
    lab.freePage(DATA + 0x1000n);
    expect(lab.rules).toEqual(['TLB-1']);
  });

  test('a page unmapped after the TLBI of the page before it was consumed does not undo that TLBI [3.21.1]', () => {
    const lab = stage2();
    lab.put(S2ROOT, 3, IPA + 0x1000n, page2(DATA + 0x1000n));
    lab.put(S2ROOT, 3, IPA, 0n);
    lab.raw(s2Ipa());
    lab.put(S2ROOT, 3, IPA + 0x1000n, 0n);
    lab.commands();
    lab.freePage(DATA);
    expect(lab.rules).toEqual([]);
    lab.freePage(DATA + 0x1000n);
    expect(lab.rules).toEqual(['TLB-1']);
  });

  test("a page that was never accessible, or is still mapped, is nobody's", () => {
    const lab = stage2();
    lab.put(S2ROOT, 3, IPA + 0x1000n, page2(DATA + 0x1000n, { AF: 0 }));
    lab.put(S2ROOT, 3, IPA + 0x1000n, 0n);
    lab.freePage(DATA + 0x1000n);
    expect(lab.rules).toEqual([]);
  });

  test('the TLBI before the store does not count', () => {
    const lab = stage2();
    lab.commands(s2Ipa());
    expect(unmap(lab, S2ROOT)).toEqual(['TLB-1']);
  });

  test('TLB-11: consumed, no CMD_SYNC', () => {
    const lab = stage2();
    lab.put(S2ROOT, 3, IPA, 0n);
    lab.raw(s2Ipa());
    lab.freePage(DATA);
    expect(lab.rules).toEqual(['TLB-11']);
  });

  test('a TLBI consumed after the last stream had left, and completed after the unmap, makes it good', () => {
    const lab = stage2();
    lab.remove(0x10);
    lab.raw(commands.CMD_TLBI_S12_VMALL.encode({ VMID }));
    expect(unmap(lab, S2ROOT, [])).toEqual([]);
  });

  test('TLB-1: it was consumed while a stream could still make entries', () => {
    const lab = stage2();
    lab.raw(commands.CMD_TLBI_S12_VMALL.encode({ VMID }));
    lab.remove(0x10);
    expect(unmap(lab, S2ROOT, [])).toEqual(['TLB-1']);
  });

  test('TLB-11: it is not complete when the page is given back', () => {
    const lab = stage2();
    lab.remove(0x10);
    lab.raw(commands.CMD_TLBI_S12_VMALL.encode({ VMID }));
    expect(unmap(lab, S2ROOT)).toEqual(['TLB-11']);
  });

  test('entries outlive the stream: detached, not flushed, unmapped', () => {
    const lab = stage2();
    lab.remove(0x10);
    expect(unmap(lab, S2ROOT)).toEqual(['TLB-1']);
  });

  test('a VMID that was flushed has none', () => {
    const lab = stage2();
    lab.remove(0x10);
    lab.vmall(VMID);
    expect(unmap(lab, S2ROOT)).toEqual([]);
  });
});

describe('nested streams: both halves [4.4.3.1]', () => {
  test('TLB-5: S2_IPA alone', () => {
    expect(unmap(withNested(), S2ROOT, [s2Ipa()])).toEqual(['TLB-5']);
  });

  test('S2_IPA, SYNC, NH_ALL, SYNC', () => {
    expect(unmap(withNested(), S2ROOT, [s2Ipa()], [nhAll()])).toEqual([]);
  });

  test('TLB-6: NH_ALL first', () => {
    expect(unmap(withNested(), S2ROOT, [nhAll()], [s2Ipa()])).toEqual(['TLB-6']);
  });

  test('TLB-6: both under one CMD_SYNC, strict and lenient', () => {
    expect(unmap(withNested(), S2ROOT, [s2Ipa(), nhAll()])).toEqual(['TLB-6']);
    expect(unmap(withNested({ ordering: 'lenient' }), S2ROOT, [s2Ipa(), nhAll()])).toEqual([]);
  });

  test('NH_ALL of another VMID leaves them', () => {
    expect(unmap(withNested(), S2ROOT, [s2Ipa()], [nhAll(4)])).toEqual(['TLB-5']);
  });
});

describe('tables', () => {
  const dropTable = (...list: readonly Words[]): string[] => {
    const lab = stage2();
    lab.put(S2ROOT, 3, IPA, 0n);
    lab.commands(s2Ipa());
    lab.put(S2ROOT, 2, IPA, 0n);
    if (list.length > 0) lab.commands(...list);
    lab.freePage(lab.level3(S2ROOT, IPA));
    return lab.rules;
  };

  test('TLB-3: a table page given back without an invalidation', () => {
    expect(dropTable()).toEqual(['TLB-3']);
  });

  test('TLB-2: only last-level entries', () => {
    expect(dropTable(s2Ipa())).toEqual(['TLB-2']);
  });

  test('TLB-2: a level that is below', () => {
    expect(dropTable(s2Ipa({ Leaf: 0, Address: 0x200n, NUM: 0, SCALE: 9, TG: '4KB', TTL: 'LEVEL_2' }))).toEqual([
      'TLB-2',
    ]);
  });

  test.each([
    ['Leaf=0', s2Ipa({ Leaf: 0 })],
    ['Leaf=0 with TTL of the leaves below', s2Ipa({ Leaf: 0, NUM: 0, SCALE: 0, TG: '4KB', TTL: 'LEVEL_3' })],
    ['S12_VMALL', commands.CMD_TLBI_S12_VMALL.encode({ VMID })],
  ])('%s makes it good', (_, command) => {
    expect(dropTable(command)).toEqual([]);
  });

  test('TLB-3: given back while the stream walks it', () => {
    const lab = stage2();
    lab.freePage(S2ROOT);
    expect(lab.rules).toEqual(['TLB-3']);
  });

  test('leaves below a cleared table are stale, too', () => {
    const lab = stage2();
    lab.put(S2ROOT, 2, IPA, 0n);
    lab.freePage(DATA);
    expect(lab.rules).toEqual(['TLB-1']);
  });
});

describe('TLB-4: break-before-make [3.21.1.1]', () => {
  const bbml = (BBML: 'LEVEL_0' | 'LEVEL_1' | 'LEVEL_2'): SmmuConfig => ({
    ...LAB_CONFIG,
    IDR3: { ...linuxNesting.IDR3, BBML },
  });

  test('another page without an invalid descriptor between', () => {
    const lab = stage2();
    lab.put(S2ROOT, 3, IPA, page2(DATA + 0x1000n));
    expect(lab.rules).toEqual(['TLB-4']);
  });

  test('another memory type', () => {
    const lab = stage2();
    lab.put(S2ROOT, 3, IPA, page2(DATA, { MemAttr: 5 }));
    expect(lab.rules).toEqual(['TLB-4']);
  });

  test('permissions and flags may change', () => {
    const lab = stage2();
    lab.put(S2ROOT, 3, IPA, page2(DATA, { S2AP: 'RO' }));
    lab.put(S2ROOT, 3, IPA, page2(DATA));
    expect(lab.rules).toEqual([]);
  });

  test('break, TLBI, make', () => {
    const lab = stage2();
    lab.put(S2ROOT, 3, IPA, 0n);
    lab.commands(s2Ipa());
    lab.put(S2ROOT, 3, IPA, page2(DATA + 0x1000n));
    expect(lab.rules).toEqual([]);
  });

  const toBlock = (config: SmmuConfig, nT: number): string[] => {
    const lab = stage2({}, config);
    lab.put(S2ROOT, 2, IPA, block2(DATA, { nT }));
    return lab.rules;
  };

  test('a table becomes a block: at BBML 2 freely, at 1 with nT, at 0 not', () => {
    expect(toBlock(bbml('LEVEL_2'), 0)).toEqual([]);
    expect(toBlock(bbml('LEVEL_1'), 1)).toEqual([]);
    expect(toBlock(bbml('LEVEL_1'), 0)).toEqual(['TLB-4']);
  });

  test('global over not global', () => {
    const lab = stage1();
    lab.put(S1ROOT, 3, IPA, page1(DATA, { nG: 0 }));
    expect(lab.rules).toEqual(['TLB-4']);
  });
});

describe('stage 1 tags', () => {
  test.each([
    ['NH_VA', nhVa()],
    ['NH_VAA', commands.CMD_TLBI_NH_VAA.encode({ Address: IPA >> 12n, Leaf: 1 })],
    ['NH_ASID', commands.CMD_TLBI_NH_ASID.encode({ ASID: 7 })],
    ['NH_ALL', nhAll(0)],
  ])('%s makes it good', (_, command) => {
    expect(unmap(stage1(), S1ROOT, [command])).toEqual([]);
  });

  test('TLB-1: NH_VA of another ASID', () => {
    expect(unmap(stage1(), S1ROOT, [nhVa({ ASID: 8 })])).toEqual(['TLB-1']);
  });

  test('TLB-8: the EL2 family, or a VMID that the stream does not have', () => {
    const el2 = commands.CMD_TLBI_EL2_VA.encode({ ASID: 7, Address: IPA >> 12n, Leaf: 1 });
    expect(unmap(stage1(), S1ROOT, [el2])).toEqual(['TLB-8']);
    expect(unmap(stage1(), S1ROOT, [nhVa({ VMID: 5 })])).toEqual(['TLB-8']);
  });

  test('TLB-9: NH_ASID does not remove a global page', () => {
    const command = commands.CMD_TLBI_NH_ASID.encode({ ASID: 7 });
    expect(unmap(stage1(page1(DATA, { nG: 0 })), S1ROOT, [command])).toEqual(['TLB-9']);
    expect(unmap(stage1(page1(DATA, { nG: 0 })), S1ROOT, [nhVa()])).toEqual([]);
  });
});

describe('TLB-10: operands', () => {
  test('a granule, or a level, that the table does not have', () => {
    const range = { Address: 0x200n, NUM: 0, SCALE: 9 } as const;
    expect(unmap(stage2(), S2ROOT, [s2Ipa({ ...range, TG: '64KB', TTL: 'LEVEL_3' })])).toEqual(['TLB-10']);
    expect(unmap(stage2(), S2ROOT, [s2Ipa({ ...range, TG: '4KB', TTL: 'LEVEL_2' })])).toEqual(['TLB-10']);
    expect(unmap(stage2(), S2ROOT, [s2Ipa({ ...range, TG: '4KB', TTL: 'LEVEL_3' })])).toEqual([]);
  });

  test('low address bits of a level', () => {
    const lab = stage2();
    lab.commands(s2Ipa({ NUM: 0, SCALE: 0, TG: '4KB', TTL: 'LEVEL_2' }));
    expect(lab.rules).toEqual(['TLB-10']);
  });
});

test('TLB-12: a permission taken away without TLBI, reported done', () => {
  const lab = stage2();
  lab.put(S2ROOT, 3, IPA, page2(DATA, { S2AP: 'RO' }));
  lab.done('unmap');
  expect(lab.rules).toEqual(['TLB-12']);
});

test('TLB-13: a descriptor in use written in halves', () => {
  const lab = stage2();
  lab.machine.bus.store32(lab.entryAt(S2ROOT, 3, IPA), 0);
  expect(lab.rules).toEqual(['TLB-13']);
});

test('TLB-14: hardware updates with non-cacheable walks', () => {
  const lab = new SanitizerLab().boot();
  lab.install(0x10, s2(VMID, S2ROOT, { S2HA: 1, S2IR0: 'NC' }));
  expect(lab.rules).toEqual(['TLB-14']);
});

describe('one table under several tags', () => {
  test('VMID-6: two VMIDs, one invalidated', () => {
    const lab = stage2();
    lab.install(0x11, s2(4));
    expect(unmap(lab, S2ROOT, [s2Ipa()])).toEqual(['VMID-6']);
  });

  test('both invalidated', () => {
    const lab = stage2();
    lab.install(0x11, s2(4));
    expect(unmap(lab, S2ROOT, [s2Ipa(), s2Ipa({ VMID: 4 })])).toEqual([]);
  });

  test('VMID-8: the invalidation names a VMID that is not in use', () => {
    expect(unmap(stage2(), S2ROOT, [s2Ipa({ VMID: 9 })])).toEqual(['VMID-8']);
  });
});

test('a new table is followed from the moment its descriptor is stored', () => {
  const lab = stage2();
  const other = 0x40_0000n;
  const level3 = lab.level3(S2ROOT, other);
  lab.machine.bus.store64(level3, page2(DATA + 0x5000n));
  lab.put(S2ROOT, 2, other, tableDescriptor(level3));
  lab.machine.bus.store64(level3, 0n);
  lab.freePage(DATA + 0x5000n);
  expect(lab.rules).toEqual(['TLB-1']);
});
