/** The Stream table, linear or of two levels with level 2 on demand (kernel: `arm_smmu_init_strtab`). */
import { L1STD, STE, STRTAB_BASE_CFG, toQwords, type Words } from '../../../spec/index.ts';
import type { Pa } from '../../hw/bus.ts';
import { KernelError } from '../kernel.ts';
import { issueWithSync } from './command-batch.ts';
import { cfgiSte } from './commands.ts';
import { storeEntry } from './entry-writer.ts';
import { type LiveTable, liveLevel2 } from './live-table.ts';
import { STRTAB_SPLIT } from './probe.ts';
import type { Smmu } from './smmu.ts';
import { makeAbortSte } from './ste.ts';

/** Most level 1 descriptors that Linux makes (`STRTAB_MAX_L1_ENTRIES`). */
const MAX_L1_LOG2 = 17;

/** A piece of a Stream table; `foreign`: it was adopted, and is not the driver's to free. */
export interface TablePart {
  readonly pa: Pa;
  readonly bytes: number;
  readonly foreign?: true;
}

/** What the driver programs and how it finds an STE. */
export interface StreamTable {
  /** For STRTAB_BASE and STRTAB_BASE_CFG. */
  readonly base: Pa;
  readonly cfg: number;
  /** Makes a StreamID's STE exist (`arm_smmu_init_sid_strtab`). @throws KernelError ERANGE, ENOMEM; EINVAL for an adopted part that was damaged */
  prepare(sid: number): void;
  /** Where a StreamID's STE lies. @throws Error if it was never prepared */
  steOf(sid: number): Pa;
  /** All memory of the table, for a memory image: address and bytes. */
  readonly memory: readonly TablePart[];
}

const checkRange = (sid: number, sids: number): void => {
  if (sid >= sids) throw new KernelError('ERANGE', `StreamID 0x${sid.toString(16)} is outside the Stream table`);
};

/** Bytes of so many STEs that abort. */
const aborts = new Map<number, Uint8Array>();

function abortBytes(count: number): Uint8Array {
  let bytes = aborts.get(count);
  if (bytes === undefined) {
    const one = new Uint8Array(makeAbortSte().buffer);
    bytes = new Uint8Array(count * STE.bytes);
    for (let i = 0; i < count; i++) bytes.set(one, i * STE.bytes);
    aborts.set(count, bytes);
  }
  return bytes;
}

const fillAbort = (smmu: Smmu, base: Pa, count: number): void => smmu.kernel.bus.storeBytes(base, abortBytes(count));

/** @param live the table to adopt; null: a new one */
function linear(smmu: Smmu, live: LiveTable | null): StreamTable {
  const sidBits = live?.log2size ?? smmu.features.sidBits;
  const sids = 2 ** sidBits;
  const base = live?.base ?? smmu.kernel.allocPages('strtab', sids * STE.bytes);
  if (live === null) fillAbort(smmu, base, sids);
  const steOf = (sid: number): Pa => base + BigInt(sid * STE.bytes);
  return {
    base,
    cfg: live?.cfg ?? STRTAB_BASE_CFG.value({ FMT: 'LINEAR', LOG2SIZE: sidBits }),
    prepare: (sid) => checkRange(sid, sids),
    steOf,
    memory: [{ pa: base, bytes: sids * STE.bytes, ...(live === null ? {} : { foreign: true }) }],
  };
}

class TwoLevel implements StreamTable {
  readonly base: Pa;
  readonly cfg: number;
  readonly #smmu: Smmu;
  readonly #l1Log2: number;
  readonly #l2 = new Map<number, Pa>();
  readonly #live: LiveTable | null;

  /** @param live the table to adopt; null: a new one */
  constructor(smmu: Smmu, live: LiveTable | null) {
    this.#smmu = smmu;
    this.#live = live;
    if (live !== null) {
      this.#l1Log2 = live.log2size - STRTAB_SPLIT;
      this.base = live.base;
      this.cfg = live.cfg;
      return;
    }
    this.#l1Log2 = Math.min(smmu.features.sidBits - STRTAB_SPLIT, MAX_L1_LOG2);
    this.base = smmu.kernel.allocPages('strtab-l1', 2 ** this.#l1Log2 * L1STD.bytes);
    this.cfg = STRTAB_BASE_CFG.value({
      FMT: 'TWO_LEVEL',
      SPLIT: STRTAB_SPLIT,
      LOG2SIZE: this.#l1Log2 + STRTAB_SPLIT,
    });
  }

  get memory(): TablePart[] {
    const foreign = (yes: boolean): { foreign?: true } => (yes ? { foreign: true } : {});
    return [
      { pa: this.base, bytes: 2 ** this.#l1Log2 * L1STD.bytes, ...foreign(this.#live !== null) },
      ...[...this.#l2].map(([index, pa]) => ({
        pa,
        bytes: STE.bytes << STRTAB_SPLIT,
        ...foreign(this.#live?.l2.get(index) === pa),
      })),
    ];
  }

  /** A level 2 table of an adopted one, read again: memory may have been damaged since. @throws KernelError EINVAL */
  #adopted(index: number): boolean {
    if (this.#live === null) return false;
    const then = this.#live.l2.get(index);
    const now = liveLevel2(this.#smmu, this.base, index);
    if (now !== then) throw new KernelError('EINVAL', `L1STD ${index} of the adopted Stream table has changed`);
    if (now === undefined) return false;
    this.#l2.set(index, now);
    return true;
  }

  prepare(sid: number): void {
    checkRange(sid, 2 ** (this.#l1Log2 + STRTAB_SPLIT));
    const index = sid >>> STRTAB_SPLIT;
    if (this.#l2.has(index) || this.#adopted(index)) return;
    const { kernel } = this.#smmu;
    const l2 = kernel.allocPages('strtab-l2', STE.bytes << STRTAB_SPLIT);
    fillAbort(this.#smmu, l2, 1 << STRTAB_SPLIT);
    this.#l2.set(index, l2);
    // Aborting STEs before the pointer to them.
    kernel.dmaWmb('strtab-l2');
    this.#storeL1(index, L1STD.encode({ Span: STRTAB_SPLIT + 1, L2Ptr: l2 >> 6n }));
    if (this.#smmu.enabled && !this.#smmu.options.quirks.has('l1std-no-cfgi'))
      // A Span of 0 may be cached (5.1.1).
      issueWithSync(this.#smmu, cfgiSte(sid, false));
  }

  #storeL1(index: number, l1std: Words): void {
    const [qword = 0n] = toQwords(l1std);
    this.#smmu.kernel.bus.store64(this.base + BigInt(index * L1STD.bytes), qword);
  }

  steOf(sid: number): Pa {
    const l2 = this.#l2.get(sid >>> STRTAB_SPLIT);
    if (l2 === undefined) throw new Error(`StreamID 0x${sid.toString(16)} has no STE`);
    return l2 + BigInt((sid & ((1 << STRTAB_SPLIT) - 1)) * STE.bytes);
  }
}

/**
 * The table that the hardware's features ask for, or the one to adopt.
 * @throws KernelError ENOMEM
 */
export function makeStreamTable(smmu: Smmu, live: LiveTable | null = null): StreamTable {
  return (live?.twoLevel ?? smmu.features.twoLevelStrtab) ? new TwoLevel(smmu, live) : linear(smmu, live);
}

/** Puts an STE in place where hardware does not look yet: before SMMUEN (reserved memory regions). */
export function presetSte(smmu: Smmu, sid: number, ste: Words): void {
  smmu.strtab.prepare(sid);
  storeEntry(smmu.kernel, smmu.strtab.steOf(sid), ste);
}
