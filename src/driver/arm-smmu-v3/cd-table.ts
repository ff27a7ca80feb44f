/** A device's table of Context Descriptors (kernel: `struct arm_smmu_ctx_desc_cfg`, `arm_smmu_alloc_cd_tables`). */
import { CD, L1CD, linuxCdUsed, toQwords, type Words } from '../../../spec/index.ts';
import type { Pa } from '../../hw/bus.ts';
import { CommandBatch } from './command-batch.ts';
import { cfgiCd } from './commands.ts';
import { type Master, onTimeout } from './smmu.ts';

/** log2 of the CDs of a 64 KiB leaf, and of the largest linear table without IDR0.CD2L (`CTXDESC_L2_ENTRIES`). */
export const CD_LEAF_LOG2 = 10;

/** No bits of a CD may change in any order. */
const NOTHING_SAFE = (): Words => CD.zero();

/** See the module comment. Allocated when a first CD is needed; it belongs to the device, not to a domain. */
export class CdTable {
  readonly #master: () => Master;
  readonly #ssidBits: number;
  readonly #twoLevel: boolean;
  #base: Pa | null = null;
  /** An STE of the device names the table as its stage 1. */
  inSte = false;
  readonly #leaves = new Map<number, Pa>();
  /** Valid CDs with a SubstreamID other than 0. */
  readonly #ssids = new Set<number>();

  constructor(master: () => Master, ssidBits: number, twoLevel: boolean) {
    this.#master = master;
    this.#ssidBits = ssidBits;
    this.#twoLevel = twoLevel && ssidBits > CD_LEAF_LOG2;
  }

  get allocated(): boolean {
    return this.#base !== null;
  }

  /** @throws Error before {@link alloc}: a bug of the driver */
  get base(): Pa {
    if (this.#base === null) throw new Error('the CD table is not allocated');
    return this.#base;
  }

  /** STE.S1Fmt. */
  get format(): 'LINEAR' | 'TWO_LEVEL_64KB' {
    return this.#twoLevel ? 'TWO_LEVEL_64KB' : 'LINEAR';
  }

  /** Number of PASIDs attached (`used_ssids`). */
  get usedSsids(): number {
    return this.#ssids.size;
  }

  /** All memory of the table, for a memory image. */
  get memory(): { pa: Pa; bytes: number }[] {
    if (this.#base === null) return [];
    const root = { pa: this.#base, bytes: this.#rootBytes };
    return [root, ...[...this.#leaves.values()].map((pa) => ({ pa, bytes: CD.bytes << CD_LEAF_LOG2 }))];
  }

  get #rootBytes(): number {
    return this.#twoLevel ? L1CD.bytes << (this.#ssidBits - CD_LEAF_LOG2) : CD.bytes << this.#ssidBits;
  }

  /** Makes the CD of a SubstreamID exist; a new leaf is announced to hardware (`arm_smmu_alloc_cd_ptr`). @throws KernelError ENOMEM */
  alloc(ssid: number): void {
    const { kernel } = this.#master().smmu;
    if (this.#base === null) {
      // The CD's own invalidation is complete, and with it these zeros, before an STE names the table.
      this.#base = kernel.allocPages('cd-table', this.#rootBytes);
    }
    const index = ssid >>> CD_LEAF_LOG2;
    if (!this.#twoLevel || this.#leaves.has(index)) return;
    const leaf = kernel.allocPages('cd-leaf', CD.bytes << CD_LEAF_LOG2);
    this.#leaves.set(index, leaf);
    kernel.dmaWmb('cd-leaf');
    const [qword = 0n] = toQwords(L1CD.encode({ V: 1, L2Ptr: leaf >> 12n }));
    kernel.bus.store64(this.base + BigInt(index * L1CD.bytes), qword);
    // An invalid L1CD may be cached (5.3.1).
    this.#sync(ssid, false);
  }

  /** Where a CD lies; undefined if it does not exist (`arm_smmu_get_cd_ptr`). */
  find(ssid: number): Pa | undefined {
    if (this.#base === null) return undefined;
    if (!this.#twoLevel) return this.#base + BigInt(ssid * CD.bytes);
    const leaf = this.#leaves.get(ssid >>> CD_LEAF_LOG2);
    return leaf === undefined ? undefined : leaf + BigInt((ssid & ((1 << CD_LEAF_LOG2) - 1)) * CD.bytes);
  }

  /** Writes a CD; its own V says whether the SubstreamID is in use afterwards (`arm_smmu_write_cd_entry`). */
  write(ssid: number, cd: Words): boolean {
    const at = this.find(ssid);
    if (at === undefined) throw new Error(`the CD of SubstreamID ${ssid} does not exist`);
    const { kernel, parts } = this.#master().smmu;
    if (ssid !== 0) {
      if (CD.get(cd, 'V') === 1n) this.#ssids.add(ssid);
      else this.#ssids.delete(ssid);
    }
    const rules = { used: linuxCdUsed, safe: NOTHING_SAFE, onTimeout: onTimeout(this.#master().smmu) } as const;
    return parts.entryWriter.write(kernel, at, cd, rules, () => this.#sync(ssid, true));
  }

  /** Makes a CD invalid, if it exists (`arm_smmu_clear_cd`). */
  clear(ssid: number): boolean {
    return this.find(ssid) === undefined || this.write(ssid, CD.zero());
  }

  /** `arm_smmu_sync_cd`: one CFGI_CD for each stream of the device, one CMD_SYNC. */
  #sync(ssid: number, leaf: boolean): boolean {
    const { smmu, streams } = this.#master();
    const batch = new CommandBatch(smmu);
    for (const { sid } of streams) batch.add(cfgiCd(sid, ssid, leaf));
    return batch.submit();
  }

  /** Gives the memory back. No STE names it any more. */
  free(): void {
    const { kernel, quarantine } = this.#master().smmu;
    const { smmu } = this.#master();
    for (const leaf of this.#leaves.values())
      quarantine.retire([smmu], 'CD table', () => kernel.freePages('cd-leaf', leaf));
    const base = this.#base;
    if (base !== null) quarantine.retire([smmu], 'CD table', () => kernel.freePages('cd-table', base));
    this.#leaves.clear();
    this.#ssids.clear();
    this.#base = null;
  }
}
