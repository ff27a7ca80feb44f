/**
 * The Stream table that another kernel left in use, read as memory that nobody vouches for: every address, size and
 * number is checked before it is followed, and the walk has an end. (Linux: "iommu/arm-smmu-v3: Adopt the crashed kernel's
 * stream table for kdump", Nicolin Chen, v1 April to v10 August 2026, `arm_smmu_kexec_scan_and_resv_ids`; not merged.)
 */
import { CD, CR2, L1CD, L1STD, STE, STRTAB_BASE, STRTAB_BASE_CFG, type Words } from '../../../spec/index.ts';
import type { Pa } from '../../hw/bus.ts';
import { KernelError } from '../kernel.ts';
import { CD_LEAF_LOG2 } from './cd-table.ts';
import { readEntry } from './entry-writer.ts';
import { STRTAB_SPLIT } from './probe.ts';
import { registerAt, type Smmu } from './smmu.ts';

/** What of an SMMU its table is read by: one that is not probed yet has no more. */
export interface LiveView extends Pick<Smmu, 'name' | 'node' | 'kernel' | 'features'> {
  readonly vmids: { readonly max: number };
}

/** What a stream of the old table names. */
export interface LiveStream {
  readonly sid: number;
  /** S2VMID of an STE with stage 2; 0: stage 2 is off. */
  readonly vmid: number;
  /** ASIDs of its valid CDs, if its CD table lies in physical memory. */
  readonly asids: readonly number[];
}

/** See the module comment. */
export interface LiveTable {
  /** STRTAB_BASE.ADDR as an address, and STRTAB_BASE_CFG. */
  readonly base: Pa;
  readonly cfg: number;
  readonly twoLevel: boolean;
  /** log2 of the StreamIDs. */
  readonly log2size: number;
  /** Level 2 tables by index. */
  readonly l2: ReadonlyMap<number, Pa>;
  /** Streams that are not aborted: those whose DMA may be under way. */
  readonly streams: readonly LiveStream[];
}

/** Entries that a walk reads at most: a damaged table must not keep the kernel busy. */
const MAX_ENTRIES = 1 << 22;

const { ABORT_3, BYPASS, S1_TRANS } = STE.fields.Config.values;
const STE_LOG2 = Math.log2(STE.bytes);

/** @throws KernelError EINVAL */
function damaged(smmu: LiveView, what: string): never {
  throw new KernelError('EINVAL', `${smmu.name}: ${what}`);
}

class Walk {
  readonly #smmu: LiveView;
  #left = MAX_ENTRIES;
  /** ASIDs of CD tables that were read already: streams of one device share theirs. */
  readonly #cdTables = new Map<string, readonly number[]>();
  readonly streams: LiveStream[] = [];

  constructor(smmu: LiveView) {
    this.#smmu = smmu;
  }

  /** A table must lie in RAM as a whole, and where hardware looks for it: aligned to its size. @throws KernelError EINVAL */
  table(what: string, pa: Pa, bytes: number): Pa {
    const size = BigInt(bytes);
    if (pa === 0n || pa % size !== 0n)
      damaged(this.#smmu, `${what} at 0x${pa.toString(16)} is not aligned to its size`);
    const { ram } = this.#smmu.kernel.bus.firmware;
    if (!ram.some(({ base, size: length }) => pa >= base && pa + size <= base + length))
      damaged(this.#smmu, `${what} at 0x${pa.toString(16)} is not in memory`);
    return pa;
  }

  #count(entries: number): void {
    this.#left -= entries;
    if (this.#left < 0) damaged(this.#smmu, `more than ${MAX_ENTRIES} entries`);
  }

  /** An array of STEs, the first of which is that of StreamID `first`. @throws KernelError EINVAL */
  stes(base: Pa, first: number, count: number): void {
    const { kernel } = this.#smmu;
    this.#count(count);
    for (let i = 0; i < count; i++) {
      const pa = base + BigInt(i * STE.bytes);
      // Most are aborted or invalid, and the first word says so.
      const head = readEntry(kernel, pa, 2);
      const config = Number(STE.get(head, 'Config'));
      if (STE.get(head, 'V') === 0n || config <= ABORT_3) continue;
      this.#ste(first + i, config, readEntry(kernel, pa, STE.bytes / 4));
    }
  }

  #ste(sid: number, config: number, ste: Words): void {
    const asids = config === S1_TRANS ? this.#asids(sid, ste) : [];
    const stage2 = config !== S1_TRANS && config !== BYPASS;
    const vmid = stage2 ? STE.num(ste, 'S2VMID') : 0;
    if (stage2 && (vmid === 0 || vmid > this.#smmu.vmids.max))
      damaged(this.#smmu, `the STE of StreamID 0x${sid.toString(16)} has stage 2 on and S2VMID ${vmid}`);
    // A nested stream's CDs lie at addresses of its VM; their ASIDs are under its VMID and hurt nobody.
    this.streams.push({ sid, vmid, asids });
  }

  #asids(sid: number, ste: Words): readonly number[] {
    const { features } = this.#smmu;
    const log2 = STE.num(ste, 'S1CDMax');
    const where = `the CD table of StreamID 0x${sid.toString(16)}`;
    if (log2 > features.ssidBits)
      damaged(this.#smmu, `${where} has 2^${log2} CDs; there are ${features.ssidBits} bits`);
    const format = STE.num(ste, 'S1Fmt');
    const { LINEAR, TWO_LEVEL_64KB } = STE.fields.S1Fmt.values;
    const two = log2 > 0 && format === TWO_LEVEL_64KB;
    if (log2 > 0 && format !== LINEAR && !(two && features.twoLevelCd))
      damaged(this.#smmu, `${where} has the unknown format ${format}`);
    const base = STE.address(ste, 'S1ContextPtr');
    const key = `${base} ${log2} ${two}`;
    const known = this.#cdTables.get(key);
    if (known !== undefined) return known;
    const asids = [...new Set(two ? this.#leaves(where, base, log2) : this.#cds(where, base, 2 ** log2))];
    this.#cdTables.set(key, asids);
    return asids;
  }

  #leaves(where: string, base: Pa, log2: number): number[] {
    const count = 2 ** Math.max(0, log2 - CD_LEAF_LOG2);
    this.table(where, base, count * L1CD.bytes);
    this.#count(count);
    const out: number[] = [];
    for (let i = 0; i < count; i++) {
      const l1 = readEntry(this.#smmu.kernel, base + BigInt(i * L1CD.bytes), L1CD.bytes / 4);
      if (L1CD.get(l1, 'V') === 0n) continue;
      out.push(...this.#cds(`${where}, leaf ${i},`, L1CD.address(l1, 'L2Ptr'), 2 ** CD_LEAF_LOG2));
    }
    return out;
  }

  #cds(where: string, base: Pa, count: number): number[] {
    this.table(where, base, count * CD.bytes);
    this.#count(count);
    const out: number[] = [];
    for (let i = 0; i < count; i++) {
      const head = readEntry(this.#smmu.kernel, base + BigInt(i * CD.bytes), 2);
      if (CD.get(head, 'V') === 0n) continue;
      const asid = Number(CD.get(head, 'ASID'));
      if (asid === 0 || asid >= 2 ** this.#smmu.features.asidBits) damaged(this.#smmu, `${where} names ASID ${asid}`);
      out.push(asid);
    }
    return out;
  }
}

/** The level 2 table that an L1STD names; undefined: none. @throws KernelError EINVAL */
function level2(smmu: LiveView, walk: Walk, base: Pa, index: number): Pa | undefined {
  const l1std = readEntry(smmu.kernel, base + BigInt(index * L1STD.bytes), L1STD.bytes / 4);
  const span = L1STD.num(l1std, 'Span');
  if (span === 0) return undefined;
  if (span !== STRTAB_SPLIT + 1) damaged(smmu, `L1STD ${index} has Span ${span}`);
  return walk.table(`the level 2 table of L1STD ${index}`, L1STD.address(l1std, 'L2Ptr'), STE.bytes << STRTAB_SPLIT);
}

/** The level 2 table that an L1STD names now: memory may have changed since it was read. @throws KernelError EINVAL */
export const liveLevel2 = (smmu: LiveView, base: Pa, index: number): Pa | undefined =>
  level2(smmu, new Walk(smmu), base, index);

/**
 * Reads what STRTAB_BASE leads to.
 * @throws KernelError EINVAL for a table that this driver would not have made, or that something has damaged
 */
export function readLiveTable(smmu: LiveView): LiveTable {
  const { kernel, features } = smmu;
  const cfg = kernel.read32('adopt:STRTAB_BASE_CFG', registerAt(smmu, STRTAB_BASE_CFG));
  const value = kernel.read64('adopt:STRTAB_BASE', registerAt(smmu, STRTAB_BASE));
  const words = Uint32Array.of(Number(value & 0xffff_ffffn), Number(value >> 32n));
  const base = STRTAB_BASE.address(words, 'ADDR');
  const e2h = CR2.of(kernel.read32('adopt:CR2', registerAt(smmu, CR2)), 'E2H') === 1;
  if (e2h !== features.e2h) damaged(smmu, `CR2.E2H is ${Number(e2h)}: stage 1 has other tags here`);
  const log2size = STRTAB_BASE_CFG.of(cfg, 'LOG2SIZE');
  if (log2size > features.sidBits) damaged(smmu, `LOG2SIZE ${log2size}; StreamIDs have ${features.sidBits} bits`);
  const walk = new Walk(smmu);
  const l2 = new Map<number, Pa>();
  const twoLevel = STRTAB_BASE_CFG.of(cfg, 'FMT') === STRTAB_BASE_CFG.fields.FMT.values.TWO_LEVEL;
  if (!twoLevel) {
    walk.table('the Stream table', base, 2 ** (log2size + STE_LOG2));
    walk.stes(base, 0, 2 ** log2size);
    return { base, cfg, twoLevel, log2size, l2, streams: walk.streams };
  }
  const split = STRTAB_BASE_CFG.of(cfg, 'SPLIT');
  if (!features.twoLevelStrtab || split !== STRTAB_SPLIT || log2size < split) damaged(smmu, `SPLIT ${split}`);
  const count = 2 ** (log2size - split);
  walk.table('the Stream table', base, count * L1STD.bytes);
  const seen = new Set<Pa>();
  for (let index = 0; index < count; index++) {
    const pa = level2(smmu, walk, base, index);
    if (pa === undefined) continue;
    if (seen.has(pa)) damaged(smmu, `L1STD ${index} names a level 2 table that another one names too`);
    seen.add(pa);
    l2.set(index, pa);
    walk.stes(pa, index * 2 ** split, 2 ** split);
  }
  return { base, cfg, twoLevel, log2size, l2, streams: walk.streams };
}
