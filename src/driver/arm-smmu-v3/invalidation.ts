/**
 * Invalidation arrays: what has to be invalidated when a domain changes, for every SMMU and device it is attached to
 * (kernel: `struct arm_smmu_invs`, `arm_smmu_invs_merge`, `_unref`, `_purge`, `arm_smmu_domain_inv_range`).
 */
import {
  CMD_TLBI_EL2_VA,
  CMD_TLBI_NH_VA,
  CMD_TLBI_S2_IPA,
  type CommandLayout,
  type Slot,
  type Words,
} from '../../../spec/index.ts';
import { type Kernel, KernelError } from '../kernel.ts';
import { CommandBatch, issueWithSync } from './command-batch.ts';
import { atcInvAll, atcInvRange, tlbiEl2Asid, tlbiNhAll, tlbiNhAsid, tlbiS12Vmall } from './commands.ts';
import type { Smmu } from './smmu.ts';

/** Kinds of entry, in the order in which an array is sorted (`enum arm_smmu_inv_type`). */
export const INV_TYPES = ['S1_ASID', 'S2_VMID', 'S2_VMID_VSMMU', 'S2_VMID_S1_CLEAR', 'ATS', 'ATS_FULL'] as const;

/** See {@link INV_TYPES}. */
export type InvType = (typeof INV_TYPES)[number];

/** What one attachment needs invalidated: a tag, or a device's cache. */
export interface InvKey {
  readonly smmu: Smmu;
  readonly type: InvType;
  /** ASID, VMID or StreamID. */
  readonly id: number;
  /** PASID of an ATS entry; else 0. */
  readonly ssid: number;
}

/** An entry of an array. */
export interface Inv extends InvKey {
  /** Attachments behind it; 0: left over until the next merge or purge. */
  users: number;
}

/** Whether an entry is a TLB tag: then it is the first that its attachment contributes. */
export const isTag = (key: InvKey): boolean =>
  key.type === 'S1_ASID' || key.type === 'S2_VMID' || key.type === 'S2_VMID_VSMMU';

/** An entry of `key` with `users` attachments. */
const entryOf = ({ smmu, type, id, ssid }: InvKey, users: number): Inv => ({ smmu, type, id, ssid, users });

/** Attachments build their keys in order mostly: a copy is sorted only where they did not. */
function inOrder(keys: readonly InvKey[]): readonly InvKey[] {
  for (let i = 1; i < keys.length; i++) {
    const [before, key] = [keys[i - 1], keys[i]];
    if (before !== undefined && key !== undefined && compareInvs(before, key) > 0) return [...keys].sort(compareInvs);
  }
  return keys;
}

const isAts = (key: InvKey): boolean => key.type === 'ATS' || key.type === 'ATS_FULL';

/** Order of entries (`arm_smmu_inv_cmp`). */
export function compareInvs(a: InvKey, b: InvKey): number {
  return (
    a.smmu.index - b.smmu.index ||
    INV_TYPES.indexOf(a.type) - INV_TYPES.indexOf(b.type) ||
    a.id - b.id ||
    a.ssid - b.ssid
  );
}

/** A range to invalidate. `size` 0: everything. */
export interface InvRange {
  readonly iova: bigint;
  readonly size: bigint;
  /** Bytes that one entry to be removed maps. */
  readonly granule: bigint;
  /** Last-level entries only. */
  readonly leaf: boolean;
  /** Smallest page size of the table, as log2. */
  readonly tg: number;
}

/** The part that builds and runs invalidation; a test or the bug zoo wraps it. */
export interface Invalidation {
  /** A new array: equal keys gain a user, left-overs are dropped. @throws KernelError ENOMEM */
  merge(kernel: Kernel, invs: readonly Inv[], add: readonly InvKey[]): Inv[];
  /** Takes one user from each key, in place; cannot fail. Returns the entries that reached 0. */
  unref(invs: readonly Inv[], remove: readonly InvKey[]): Inv[];
  /** A copy without left-overs; the same array if there is no memory for one. */
  purge(kernel: Kernel, invs: Inv[]): Inv[];
  /** Invalidates a range for every entry. False: a CMD_SYNC timed out. */
  invRange(kernel: Kernel, invs: readonly Inv[], range: InvRange): boolean;
  /** Removes everything under a tag that nothing uses any more. False: timed out. */
  flushTag(tag: InvKey): boolean;
  /** Stage 1 under a VMID that goes on being used by stage 2 alone. */
  flushStage1(key: InvKey): boolean;
}

function merge(kernel: Kernel, invs: readonly Inv[], add: readonly InvKey[]): Inv[] {
  kernel.alloc('invs');
  const sorted = inOrder(add);
  const out: Inv[] = [];
  let next = 0;
  for (const inv of invs) {
    for (let key = sorted[next]; key !== undefined && compareInvs(key, inv) < 0; key = sorted[++next])
      out.push(entryOf(key, 1));
    const key = sorted[next];
    const gains = key !== undefined && compareInvs(key, inv) === 0;
    if (gains) next++;
    if (gains || inv.users > 0) out.push(entryOf(inv, inv.users + (gains ? 1 : 0)));
  }
  for (; next < sorted.length; next++) {
    const key = sorted[next];
    if (key !== undefined) out.push(entryOf(key, 1));
  }
  return out;
}

function unref(invs: readonly Inv[], remove: readonly InvKey[]): Inv[] {
  const sorted = inOrder(remove);
  const gone: Inv[] = [];
  let next = 0;
  for (const inv of invs) {
    const key = sorted[next];
    if (key === undefined) break;
    if (compareInvs(key, inv) !== 0) continue;
    next++;
    inv.users--;
    if (inv.users === 0) gone.push(inv);
  }
  if (next < sorted.length) throw new Error('invalidation array lacks an entry that an attachment put there');
  return gone;
}

function purge(kernel: Kernel, invs: Inv[]): Inv[] {
  if (!invs.some((inv) => inv.users === 0)) return invs;
  try {
    kernel.alloc('invs');
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    // Left-overs are harmless: readers skip them, and the next merge drops them.
    return invs;
  }
  return invs.filter((inv) => inv.users > 0);
}

/** The command that removes everything under a tag (`nsize_opcode`). */
function wholeTag(inv: InvKey): Words {
  if (inv.type === 'S1_ASID') return inv.smmu.features.e2h ? tlbiEl2Asid(inv.id) : tlbiNhAsid(inv.id);
  return tlbiS12Vmall(inv.id);
}

/** Operands of a command by address besides tag and address. */
interface RangeFields {
  readonly NUM: number;
  readonly SCALE: number;
  readonly TG: number;
  readonly TTL: number;
}

const PAGE_SHIFT = 12n;

/** The fields of a command by address as places in its words: unmap is the hot path. */
function byAddressMaker(
  layout: CommandLayout,
  tagName: string,
): (tag: number, page: bigint, leaf: boolean, f: RangeFields) => Words {
  const base = layout.encode();
  const [NUM, SCALE, TG, TTL, LEAF, TAG] = ['NUM', 'SCALE', 'TG', 'TTL', 'Leaf', tagName].map((name) =>
    layout.slot(name as 'Opcode'),
  ) as [Slot, Slot, Slot, Slot, Slot, Slot];
  const pieces = layout.parts('Address' as 'Opcode');
  const put = (words: Words, { word, shift, mask }: Slot, value: number): void => {
    words[word] = ((words[word] ?? 0) | ((value & mask) << shift)) >>> 0;
  };
  return (tag, page, leaf, { NUM: num, SCALE: scale, TG: tg, TTL: ttl }) => {
    const words = base.slice();
    put(words, NUM, num);
    put(words, SCALE, scale);
    put(words, TG, tg);
    put(words, TTL, ttl);
    put(words, LEAF, leaf ? 1 : 0);
    put(words, TAG, tag);
    for (const piece of pieces) put(words, piece, Number((page >> BigInt(piece.at)) & BigInt(piece.mask)));
    return words;
  };
}

const s2Ipa = byAddressMaker(CMD_TLBI_S2_IPA as CommandLayout, 'VMID');
const nhVa = byAddressMaker(CMD_TLBI_NH_VA as CommandLayout, 'ASID');
const el2Va = byAddressMaker(CMD_TLBI_EL2_VA as CommandLayout, 'ASID');

/** One command by address (`size_opcode`). */
function byAddress(inv: InvKey, address: bigint, leaf: boolean, fields: RangeFields): Words {
  const make = inv.type !== 'S1_ASID' ? s2Ipa : inv.smmu.features.e2h ? el2Va : nhVa;
  return make(inv.id, address >> PAGE_SHIFT, leaf, fields);
}

/** Position of the highest one; sizes are powers of two mostly. */
const log2 = (size: bigint): number =>
  31 - Math.clz32(Number(size >> 32n) || Number(size)) + (size >> 32n === 0n ? 0 : 32);

const trailingZeros = (value: bigint): number => log2(value & -value);

/** Largest NUM + 1 of a range command. */
const RANGE_NUM_MAX = 31n;

/** A range as TLBI commands (`arm_smmu_cmdq_batch_add_range`). */
function addRange(batch: CommandBatch, inv: InvKey, { iova, size, granule, leaf, tg }: InvRange): void {
  const end = iova + size;
  if (!inv.smmu.features.rangeInv) {
    for (let at = iova; at < end; at += granule)
      batch.add(byAddress(inv, at, leaf, { NUM: 0, SCALE: 0, TG: 0, TTL: 0 }));
    return;
  }
  let pages = size >> BigInt(tg);
  const TTL = leaf ? 4 - Math.floor((log2(granule) - 3) / (tg - 3)) : 0;
  // A single page without a level hint would be NUM=SCALE=TTL=0 with TG set, which is reserved (4.4.1.1).
  if (!leaf && (pages & RANGE_NUM_MAX) === 1n) pages++;
  for (let at = iova; at < end && pages > 0n; ) {
    const SCALE = trailingZeros(pages);
    const num = (pages >> BigInt(SCALE)) & RANGE_NUM_MAX;
    batch.add(byAddress(inv, at, leaf, { NUM: Number(num) - 1, SCALE, TG: (tg - 10) / 2, TTL }));
    pages -= num << BigInt(SCALE);
    at += num << BigInt(SCALE + tg);
  }
}

/** Without ranges, one command for the whole tag is cheaper than one a page (`arm_smmu_inv_size_too_big`). */
function tooBig(smmu: Smmu, size: bigint, granule: bigint): boolean {
  return !smmu.features.rangeInv && size >= granule << BigInt(log2(granule) - 3);
}

function addInv(batch: CommandBatch, inv: InvKey, range: InvRange, whole: boolean): void {
  if (inv.type === 'ATS_FULL') batch.add(atcInvAll(inv.id, 0));
  else if (inv.type === 'ATS')
    batch.add(
      range.size === 0n
        ? atcInvAll(inv.id, inv.ssid)
        : atcInvRange(inv.id, inv.ssid, range.iova >> PAGE_SHIFT, (range.iova + range.size - 1n) >> PAGE_SHIFT),
    );
  else if (inv.type === 'S2_VMID_S1_CLEAR') {
    // With the whole VMID gone (S12_VMALL) there is no stage 1 left to remove.
    if (!whole) batch.add(tlbiNhAll(inv.id));
  } else if (whole) batch.add(wholeTag(inv));
  else addRange(batch, inv, range);
}

/** Whether what comes next has to see the earlier commands complete (`arm_smmu_invs_end_batch`). */
function endsBatch(last: InvKey, next: InvKey): boolean {
  return (
    next.smmu !== last.smmu ||
    (next.type === 'S2_VMID_S1_CLEAR' && last.type !== 'S2_VMID_S1_CLEAR') ||
    (isAts(next) && !isAts(last))
  );
}

function invRange(kernel: Kernel, invs: readonly Inv[], range: InvRange): boolean {
  // Table stores before the array is read: an attachment that is not in it yet will walk the new tables.
  kernel.mb('inv-range');
  const live = invs.filter((inv) => inv.users > 0);
  let done = true;
  let batch: CommandBatch | null = null;
  for (const [i, inv] of live.entries()) {
    batch ??= new CommandBatch(inv.smmu);
    addInv(batch, inv, range, range.size === 0n || tooBig(inv.smmu, range.size, range.granule));
    const next = live[i + 1];
    if (next !== undefined && !endsBatch(inv, next)) continue;
    if (!batch.empty && !batch.submit()) done = false;
    batch = null;
  }
  return done;
}

/** The kernel's. */
export const invalidation: Invalidation = {
  merge,
  unref,
  purge,
  invRange,
  flushTag: (tag) => issueWithSync(tag.smmu, wholeTag(tag)),
  flushStage1: (key) => issueWithSync(key.smmu, tlbiNhAll(key.id)),
};
