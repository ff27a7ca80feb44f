/** TLB invalidations as rules need them: what a command is about, decoded once. */
import {
  type Caps,
  CMD_TLBI_NH_VA,
  CMD_TLBI_S2_IPA,
  COMMANDS,
  effectiveScale,
  effectiveTtl,
  GEOMETRY,
  opcodeOf,
  slotValue,
  type Words,
} from '../../spec/index.ts';
import type { TlbInvalidation } from '../hw/transaction.ts';
import { unitOf } from './units.ts';

/** What a command takes away, by whom it is meant for. */
export type FlushScope =
  | 'nh-all'
  | 'nh-asid'
  | 'nh-va'
  | 'nh-vaa'
  | 's2-ipa'
  | 's12-vmall'
  | 'nsnh-all'
  | 'el2-all'
  | 'el2-asid'
  | 'el2-va'
  | 'el2-vaa';

/** One TLB invalidation. */
export interface Flush {
  readonly scope: FlushScope;
  readonly name: string;
  /** 0 where the command has none. */
  readonly VMID: number;
  readonly ASID: number;
  /** Input addresses in 4 KiB pages, [first, end). Everything for commands without an address. */
  readonly first: number;
  readonly end: number;
  readonly leaf: boolean;
  /** 0: any level. */
  readonly level: number;
  /** log2 of the granule; 0: any. */
  readonly granule: number;
  /** An operand that this SMMU's tags do not have: it hits nothing (4.4). */
  readonly void: boolean;
  /** The operand is aligned as a range needs it (4.4.1.1). */
  readonly misaligned: boolean;
}

const SCOPES: ReadonlyMap<number, readonly [FlushScope, string]> = new Map<number, readonly [FlushScope, string]>([
  [COMMANDS.CMD_TLBI_NH_ALL.opcode, ['nh-all', 'CMD_TLBI_NH_ALL']],
  [COMMANDS.CMD_TLBI_NH_ASID.opcode, ['nh-asid', 'CMD_TLBI_NH_ASID']],
  [COMMANDS.CMD_TLBI_NH_VA.opcode, ['nh-va', 'CMD_TLBI_NH_VA']],
  [COMMANDS.CMD_TLBI_NH_VAA.opcode, ['nh-vaa', 'CMD_TLBI_NH_VAA']],
  [COMMANDS.CMD_TLBI_S2_IPA.opcode, ['s2-ipa', 'CMD_TLBI_S2_IPA']],
  [COMMANDS.CMD_TLBI_S12_VMALL.opcode, ['s12-vmall', 'CMD_TLBI_S12_VMALL']],
  [COMMANDS.CMD_TLBI_NSNH_ALL.opcode, ['nsnh-all', 'CMD_TLBI_NSNH_ALL']],
  [COMMANDS.CMD_TLBI_EL2_ALL.opcode, ['el2-all', 'CMD_TLBI_EL2_ALL']],
  [COMMANDS.CMD_TLBI_EL2_ASID.opcode, ['el2-asid', 'CMD_TLBI_EL2_ASID']],
  [COMMANDS.CMD_TLBI_EL2_VA.opcode, ['el2-va', 'CMD_TLBI_EL2_VA']],
  [COMMANDS.CMD_TLBI_EL2_VAA.opcode, ['el2-vaa', 'CMD_TLBI_EL2_VAA']],
]);

const BY_ADDRESS: ReadonlySet<FlushScope> = new Set<FlushScope>(['nh-va', 'nh-vaa', 's2-ipa', 'el2-va', 'el2-vaa']);
const WITH_VMID: ReadonlySet<FlushScope> = new Set<FlushScope>([
  'nh-all',
  'nh-asid',
  'nh-va',
  'nh-vaa',
  's2-ipa',
  's12-vmall',
]);
const WITH_ASID: ReadonlySet<FlushScope> = new Set<FlushScope>(['nh-asid', 'nh-va', 'el2-asid', 'el2-va']);

const VMID = CMD_TLBI_NH_VA.slot('VMID');
const ASID = CMD_TLBI_NH_VA.slot('ASID');
const LEAF = CMD_TLBI_NH_VA.slot('Leaf');
const TTL = CMD_TLBI_NH_VA.slot('TTL');
const TG = CMD_TLBI_NH_VA.slot('TG');
const NUM = CMD_TLBI_NH_VA.slot('NUM');
const SCALE = CMD_TLBI_NH_VA.slot('SCALE');
const VA = CMD_TLBI_NH_VA.mask(['Address']);
const IPA = CMD_TLBI_S2_IPA.mask(['Address']);
/** log2 of the granule by TG. */
const GRANULES = [0, GEOMETRY['4k'].shift, GEOMETRY['16k'].shift, GEOMETRY['64k'].shift] as const;
const STRIDES = [0, GEOMETRY['4k'].stride, GEOMETRY['16k'].stride, GEOMETRY['64k'].stride] as const;
const PAGE_LOG2 = 12;
/** Units of 8 bytes in a page of 4 KiB. */
const UNITS = 2 ** (PAGE_LOG2 - 3);
const EVERYTHING = 2 ** 52;

/** The invalidation that a command is; undefined for other commands. `VMID`: what a VINTF puts in its place, or -1. */
export function flushOf(words: Words, caps: Caps, vintfVmid: number): Flush | undefined {
  const found = SCOPES.get(opcodeOf(words));
  if (found === undefined) return undefined;
  const [scope, name] = found;
  const vmid = vintfVmid >= 0 ? vintfVmid : caps.S2P && WITH_VMID.has(scope) ? slotValue(words, VMID) : 0;
  const asid = WITH_ASID.has(scope) ? slotValue(words, ASID) : 0;
  const flush = {
    scope,
    name,
    VMID: vmid,
    ASID: asid,
    first: 0,
    end: EVERYTHING,
    leaf: false,
    level: 0,
    granule: 0,
    void: vmid >= 2 ** caps.vmidBits || asid >= 2 ** caps.asidBits,
    misaligned: false,
  };
  if (!BY_ADDRESS.has(scope)) return flush;
  const mask = scope === 's2-ipa' ? IPA : VA;
  const at = Math.floor(unitOf((words[3] ?? 0) & (mask[3] ?? 0), (words[2] ?? 0) & (mask[2] ?? 0)) / UNITS);
  flush.first = at;
  flush.end = at + 1;
  flush.leaf = slotValue(words, LEAF) === 1;
  const tg = caps.RIL ? slotValue(words, TG) : 0;
  if (tg === 0) return flush;
  flush.granule = GRANULES[tg] ?? 0;
  flush.level = effectiveTtl(slotValue(words, TTL), tg, caps);
  const pages = (slotValue(words, NUM) + 1) * 2 ** effectiveScale(slotValue(words, SCALE), caps);
  flush.end = at + pages * 2 ** (flush.granule - PAGE_LOG2);
  const aligned = flush.granule + (flush.level === 0 ? 0 : (3 - flush.level) * (STRIDES[tg] ?? 0));
  flush.misaligned = at % 2 ** (aligned - PAGE_LOG2) !== 0;
  return flush;
}

/** A broadcast by a CPU as an invalidation; undefined for one of no kind that is followed. */
export function flushOfBroadcast(inv: TlbInvalidation): Flush | undefined {
  const found = SCOPES.get(inv.opcode);
  if (found === undefined) return undefined;
  const [scope] = found;
  const common = { scope, name: 'a broadcast TLBI', VMID: inv.VMID, ASID: inv.ASID, void: false, misaligned: false };
  if (!BY_ADDRESS.has(scope)) return { ...common, first: 0, end: EVERYTHING, leaf: false, level: 0, granule: 0 };
  const at = Math.floor(unitOf(inv.addrHi, inv.addrLo) / UNITS);
  const granule = GRANULES[inv.TG] ?? 0;
  const pages = inv.TG === 0 ? 1 : (inv.NUM + 1) * 2 ** inv.SCALE * 2 ** (granule - PAGE_LOG2);
  return { ...common, first: at, end: at + pages, leaf: inv.Leaf, level: inv.TTL, granule };
}

/** A tag as an invalidation knows it. */
interface FlushedTag {
  readonly stage: 1 | 2;
  /** Whether the StreamWorld is EL2. */
  readonly el2: boolean;
  readonly VMID: number;
  readonly ASID: number;
}

/** Whether an invalidation leaves nothing of a tag. @param global some of its entries are of no ASID */
export function empties(flush: Flush, { stage, el2, VMID, ASID }: FlushedTag, VMW: number, global: boolean): boolean {
  if (flush.void) return false;
  switch (flush.scope) {
    case 'el2-all':
      return stage === 1 && el2;
    case 'nsnh-all':
      return !el2;
    case 's12-vmall':
      return !el2 && reachesVmid(flush, VMID, VMW);
    case 'nh-all':
      return stage === 1 && !el2 && reachesVmid(flush, VMID, VMW);
    case 'nh-asid':
      return stage === 1 && !el2 && reachesVmid(flush, VMID, VMW) && flush.ASID === ASID && !global;
    case 'el2-asid':
      return stage === 1 && el2 && flush.ASID === ASID && !global;
    default:
      return false;
  }
}

/** Whether an invalidation reaches entries of a VMID; CR0.VMW lets it reach a whole group. */
export const reachesVmid = (flush: Flush, vmid: number, VMW: number): boolean =>
  !flush.void && (flush.scope === 'nsnh-all' || flush.VMID >>> VMW === Math.max(vmid, 0) >>> VMW);
