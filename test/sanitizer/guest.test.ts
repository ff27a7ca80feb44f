/** The stage 1 of a VM, judged for the VM: what it breaks there is its own fault and its own loss (3.20.1). */
import { describe, expect, test } from 'vitest';
import * as commands from '../../spec/commands.ts';
import { cd, DATA, LAB_CONFIG, nested, page1, page2, S2ROOT, SanitizerLab, tableDescriptor } from './lab.ts';

const SID = 0x10;
const VMID = 3;
const ASID = 7;
/** Intermediate addresses, and where each page lies in the host. */
const CDS = 0x1_0000n;
const TABLES = 0x2_0000n;
const PLACES: readonly (readonly [ipa: bigint, pa: bigint])[] = [
  [CDS, 0x4090_0000n],
  [TABLES, 0x4091_0000n],
  [TABLES + 0x1000n, 0x4093_0000n],
  [TABLES + 0x2000n, 0x4092_0000n],
  [0x3_0000n, DATA],
];
const pa = (ipa: bigint): bigint => PLACES.find(([page]) => page === ipa - (ipa & 0xfffn))?.[1] ?? 0n;
const VA = 0x5000n;
const LEAF = TABLES + 0x2000n;

/** Stream 0x10 of a VM: CD 0 with three levels of tables, one page of data; everything in place before it is used. */
function vm(guests = true): SanitizerLab {
  const lab = new SanitizerLab({ guests }, LAB_CONFIG).boot();
  lab.vmid('alloc', VMID);
  for (const [ipa, at] of PLACES) lab.map(S2ROOT, ipa, page2(at));
  const { bus } = lab.machine;
  bus.store64(pa(TABLES), tableDescriptor(TABLES + 0x1000n));
  bus.store64(pa(TABLES + 0x1000n), tableDescriptor(LEAF));
  bus.store64(pa(LEAF) + 8n * (VA >> 12n), page1(0x3_0000n));
  lab.store(pa(CDS), cd(ASID, TABLES));
  bus.mb();
  lab.install(SID, nested(VMID));
  return lab;
}

const read = (lab: SanitizerLab): string => lab.machine.endpoint('dev10').read(VA, 8).status;

const found = (lab: SanitizerLab): string[] => lab.sanitizer.report().findings.map(({ rule, by }) => `${by} ${rule}`);

const setLeaf = (lab: SanitizerLab, value: bigint): void => lab.machine.bus.store64(pa(LEAF) + 8n * (VA >> 12n), value);
const nhAsid = commands.CMD_TLBI_NH_ASID.encode({ VMID, ASID });

test('a VM that keeps the rules: no finding, and its device works', () => {
  const lab = vm();
  expect(read(lab)).toBe('ok');
  setLeaf(lab, 0n);
  lab.commands(nhAsid);
  expect(read(lab)).toBe('abort');
  expect(found(lab)).toEqual([]);
});

describe('what a VM breaks', () => {
  test('TLB-1: a page taken away without a TLBI, and a transaction arrives [3.21.1]', () => {
    const lab = vm();
    setLeaf(lab, 0n);
    expect(found(lab)).toEqual([]);
    lab.dma(SID, VA);
    expect(found(lab)).toEqual(['guest TLB-1']);
  });

  test('TLB-8: a TLBI of another VMID is none of its own', () => {
    const lab = vm();
    setLeaf(lab, 0n);
    lab.commands(commands.CMD_TLBI_NH_ASID.encode({ VMID: VMID + 1, ASID }));
    lab.dma(SID, VA);
    expect(found(lab)).toEqual(['guest TLB-8']);
  });

  test('TLB-4: another page without break-before-make [3.21.1.1]', () => {
    const lab = vm();
    setLeaf(lab, page1(CDS));
    expect(found(lab)).toEqual(['guest TLB-4']);
  });

  test('CFG-1: a CD that is cleared without CMD_CFGI_CD [3.21.3]', () => {
    const lab = vm();
    lab.storeWords(pa(CDS), cd(ASID, TABLES, { V: 0 }), [0]);
    lab.dma(SID, VA);
    expect(found(lab)).toEqual(['guest CFG-1']);
    const kept = vm();
    kept.storeWords(pa(CDS), cd(ASID, TABLES, { V: 0 }), [0]);
    kept.cfgiCd(SID);
    kept.dma(SID, VA);
    expect(found(kept)).toEqual([]);
  });

  test('CFG-4: two words of a CD change while it is valid', () => {
    const lab = vm();
    lab.storeWords(pa(CDS), cd(ASID + 1, TABLES + 0x1000n), [0, 1]);
    lab.cfgiCd(SID);
    expect(found(lab)).toContain('guest CFG-4');
  });

  test('TLB-10: a range that is not aligned to its level [4.4.1.1]', () => {
    const lab = vm();
    lab.commands(
      commands.CMD_TLBI_NH_VA.encode({ VMID, ASID, Address: VA >> 12n, TG: '4KB', TTL: 2, NUM: 0, SCALE: 0 }),
    );
    expect(found(lab)).toEqual(['guest TLB-10']);
  });
});

test('by default a VM is not judged', () => {
  const lab = vm(false);
  setLeaf(lab, 0n);
  lab.storeWords(pa(CDS), cd(ASID, TABLES, { V: 0 }), [0]);
  lab.dma(SID, VA);
  expect(found(lab)).toEqual([]);
});
