/** Shape and descriptors of an IoPageTable (kernel: `arm_lpae_alloc_pgtable`, `arm_lpae_prot_to_pte`). */
import {
  DESCRIPTOR_LOG2,
  DESCRIPTOR_TYPE,
  type DescriptorFormat,
  GEOMETRY,
  type Granule,
  type Layout,
  type Level,
  type Part,
  pte1,
  pte2,
} from '../../../spec/index.ts';
import type { MapProt } from '../iommu/ops.ts';
import { paRange } from './cd.ts';

/** What a table is to be. */
export interface TableConfig {
  readonly stage: 1 | 2;
  readonly granule: Granule;
  /** Bits of input and output addresses. */
  readonly ias: number;
  readonly oas: number;
  /** Page sizes as a bit map, of this granule only. */
  readonly pgsizeBitmap: bigint;
  readonly coherent: boolean;
  /** Stage 2: S2FWB encodings. */
  readonly s2fwb: boolean;
  /** Stage 1: writable leaves carry DBM. */
  readonly dirty: boolean;
}

/** What STE and CD have to say about a table (`struct io_pgtable_cfg`, arm_lpae_s1_cfg and s2_cfg). */
export interface TableFormat {
  readonly t0sz: number;
  readonly tg0: '4KB' | '16KB' | '64KB';
  readonly ps: number;
  /** S2SL0; 0 for stage 1. */
  readonly sl0: number;
  readonly cacheability: 'NC' | 'WB_RA_WA';
  readonly shareability: 'OSH' | 'ISH';
  readonly s2fwb: boolean;
  readonly dirty: boolean;
}

const TG0 = { '4k': '4KB', '16k': '16KB', '64k': '64KB' } as const;

/** Levels and index arithmetic of one table. */
export interface TableShape {
  readonly granuleShift: number;
  readonly startLevel: number;
  /** Entries of the start table, concatenation included. */
  readonly rootEntries: number;
  /** Entries of every other table. */
  readonly entries: number;
  /** Lowest input address bit of a level's index, by level. */
  readonly shift: (level: number) => number;
}

/** Start level with the concatenation that the architecture demands, and no other (`arm_lpae_concat_mandatory`). */
function startLevelOf({ stage, granule, ias, oas }: TableConfig): number {
  const { shift, stride } = GEOMETRY[granule];
  const start = 4 - Math.ceil((ias - shift) / stride);
  if (stage === 1) return start;
  if (granule === '4k' && start === 0 && (oas === 40 || oas === 42)) return 1;
  if (granule === '16k' && start === 0 && (oas === 48 || ias === 48)) return 1;
  if (granule === '16k' && start === 1 && oas === 40) return 2;
  return start;
}

/** Geometry of a table. */
export function shapeOf(config: TableConfig): TableShape {
  const { shift, stride } = GEOMETRY[config.granule];
  const startLevel = startLevelOf(config);
  const levelShift = (level: number): number => shift + stride * (3 - level);
  return {
    granuleShift: shift,
    startLevel,
    rootEntries: 2 ** (config.ias - levelShift(startLevel)),
    entries: 2 ** (shift - DESCRIPTOR_LOG2),
    shift: levelShift,
  };
}

/** Low two bits of S2SL0: counted from another level with 4 KB granules (IHI 0070 5.2 S2SL0). */
const SL0_MASK = 3;

/** Register-side description of a table. */
export function formatOf(config: TableConfig, shape: TableShape): TableFormat {
  const level = shape.startLevel + (config.granule === '4k' ? 1 : 0);
  return {
    t0sz: 64 - config.ias,
    tg0: TG0[config.granule],
    ps: paRange(config.oas),
    sl0: config.stage === 1 ? 0 : SL0_MASK & ~level,
    cacheability: config.coherent ? 'WB_RA_WA' : 'NC',
    shareability: config.coherent ? 'ISH' : 'OSH',
    s2fwb: config.s2fwb,
    dirty: config.dirty,
  };
}

/** MAIR indexes of stage 1 leaves. */
const ATTR = { NC: 0, CACHE: 1, DEVICE: 2 } as const;

/** Stage 2 MemAttr of leaves; with S2FWB write-back is another value. */
const MEMATTR = { DEVICE: 1, NC: 5, CACHE: 15, FWB_CACHE: 6 } as const;

type Values = Readonly<Record<string, number | string>>;

/** A descriptor by field and value names; the layouts of descriptors are not typed by field. */
function build(layout: Layout, values: Values): Uint32Array {
  const words = layout.zero();
  for (const [name, value] of Object.entries(values)) layout.set(words, name, value);
  return words;
}

/** Attribute bits of a leaf as (hi, lo). */
export interface LeafBits {
  readonly hi: number;
  readonly lo: number;
}

/** Where an address goes in a descriptor: bits of the address from `from` into a slot. */
interface AddressPiece extends Part {
  readonly from: number;
}

/** What of a table's configuration its descriptors depend on. */
type DescriptorConfig = Pick<TableConfig, 'stage' | 'granule' | 'oas' | 's2fwb' | 'dirty'>;

const known: Descriptors[] = [];

/** The descriptors of a table. Tables of one kind share them; there are few kinds. */
export function descriptorsOf({ stage, granule, oas, s2fwb, dirty }: DescriptorConfig): Descriptors {
  for (const one of known) {
    const { config } = one;
    if (
      config.stage === stage &&
      config.granule === granule &&
      config.oas === oas &&
      config.s2fwb === s2fwb &&
      config.dirty === dirty
    )
      return one;
  }
  const made = new Descriptors({ stage, granule, oas, s2fwb, dirty });
  known.push(made);
  return made;
}

/** Descriptors of one kind of table: made from the layouts once, used as integers. */
export class Descriptors {
  readonly config: DescriptorConfig;
  readonly #leaves = new Map<number, Layout>();
  readonly #bits = new Map<number, LeafBits>();
  readonly #leafPieces = new Map<number, readonly AddressPiece[]>();
  readonly #tablePieces: readonly AddressPiece[];
  readonly #tableType: number;
  readonly #format: DescriptorFormat;
  readonly valid: number;
  readonly #typeBits: number;
  /** Bits that say "writable, and written to" (DBM set, read-only clear) and what makes a leaf clean again. */
  readonly dbm: LeafBits;
  readonly readOnly: LeafBits;

  constructor(config: DescriptorConfig) {
    this.config = config;
    this.#format = { pa52: config.oas > 48 };
    const table = this.#layout(config.granule === '64k' ? 2 : 1, 'table');
    this.#tablePieces = piecesOf(table, 'NextLevelTableAddress');
    this.#tableType = table.encode({ Valid: 1, Type: 1 })[0] ?? 0;
    this.valid = DESCRIPTOR_TYPE.mask(['Valid'])[0] ?? 0;
    this.#typeBits = DESCRIPTOR_TYPE.mask(['Valid', 'Type'])[0] ?? 0;
    const page = this.#leaf(3);
    const dbm = page.mask(['DBM']);
    this.dbm = { hi: dbm[1] ?? 0, lo: dbm[0] ?? 0 };
    const readOnly = config.stage === 1 ? build(page, { AP: 'PRIV_RO' }) : page.zero();
    this.readOnly = { hi: readOnly[1] ?? 0, lo: readOnly[0] ?? 0 };
  }

  #layout(level: Level, kind: 'table' | 'block' | 'page'): Layout {
    return (this.config.stage === 1 ? pte1 : pte2)(this.config.granule, level, kind, this.#format);
  }

  #leaf(level: number): Layout {
    let found = this.#leaves.get(level);
    if (found === undefined) {
      found = this.#layout(level as Level, level === 3 ? 'page' : 'block');
      this.#leaves.set(level, found);
    }
    return found;
  }

  /** Whether a valid descriptor's low half is a leaf at this level. */
  isLeaf(lo: number, level: number): boolean {
    const table = (lo & this.#typeBits) === this.#tableType;
    return level === 3 ? table : !table;
  }

  /** The attribute bits of a leaf (`arm_lpae_prot_to_pte`). */
  leafBits(level: number, prot: MapProt): LeafBits {
    const { read, write, cache, noexec = false, mmio = false, priv = false } = prot;
    let key = level;
    for (const flag of [read, write, cache, noexec, mmio, priv]) key = 2 * key + (flag ? 1 : 0);
    let bits = this.#bits.get(key);
    if (bits === undefined) {
      const words = this.config.stage === 1 ? this.#stage1(level, prot) : this.#stage2(level, prot);
      bits = { hi: words[1] ?? 0, lo: words[0] ?? 0 };
      this.#bits.set(key, bits);
    }
    return bits;
  }

  #stage1(level: number, prot: MapProt): Uint32Array {
    const readOnly = prot.read && !prot.write;
    return build(this.#leaf(level), {
      Valid: 1,
      Type: level === 3 ? 1 : 0,
      AttrIndx: prot.mmio === true ? ATTR.DEVICE : prot.cache ? ATTR.CACHE : ATTR.NC,
      AP: prot.priv === true ? (readOnly ? 'PRIV_RO' : 'PRIV_RW') : readOnly ? 'RO' : 'RW',
      SH: prot.cache ? 'ISH' : 'OSH',
      AF: 1,
      nG: 1,
      ...(prot.noexec === true ? { PXN: 1, UXN: 1 } : {}),
      ...(this.config.dirty && !readOnly ? { DBM: 1 } : {}),
    });
  }

  #stage2(level: number, prot: MapProt): Uint32Array {
    const cached = this.config.s2fwb ? MEMATTR.FWB_CACHE : MEMATTR.CACHE;
    const leaf = this.#leaf(level);
    return build(leaf, {
      Valid: 1,
      Type: level === 3 ? 1 : 0,
      MemAttr: prot.mmio === true ? MEMATTR.DEVICE : prot.cache ? cached : MEMATTR.NC,
      S2AP: prot.write ? (prot.read ? 'RW' : 'WO') : prot.read ? 'RO' : 'NONE',
      SH: prot.cache ? 'ISH' : 'OSH',
      AF: 1,
      // Both bits: execution is off with and without IDR3.XNX.
      ...(prot.noexec === true ? { XN: 3 } : {}),
    });
  }

  /** A leaf: attribute bits with an output address. */
  leaf(level: number, bits: LeafBits, paHi: number, paLo: number): LeafBits {
    let pieces = this.#leafPieces.get(level);
    if (pieces === undefined) {
      pieces = piecesOf(this.#leaf(level), 'OutputAddress');
      this.#leafPieces.set(level, pieces);
    }
    return insert(pieces, bits.hi, bits.lo, paHi, paLo);
  }

  /** A table descriptor. */
  table(paHi: number, paLo: number): LeafBits {
    return insert(this.#tablePieces, 0, this.#tableType, paHi, paLo);
  }

  /** The address in a table descriptor or leaf. */
  address(hi: number, lo: number, level: number, leaf: boolean): LeafBits {
    if (!leaf) return extract(this.#tablePieces, hi, lo);
    this.leaf(level, { hi: 0, lo: 0 }, 0, 0);
    return extract(this.#leafPieces.get(level) ?? [], hi, lo);
  }
}

function piecesOf(layout: Layout, name: string): AddressPiece[] {
  const low = layout.field(name).address ?? 0;
  return layout.parts(name).map(({ word, shift, mask, at }) => ({ word, shift, mask, at, from: at + low }));
}

/** `mask` bits of a 64-bit value from bit `from` up. */
const bitsAt = (hi: number, lo: number, from: number): number =>
  from >= 32 ? hi >>> (from - 32) : from === 0 ? lo : (lo >>> from) | (hi << (32 - from));

function insert(pieces: readonly AddressPiece[], hi: number, lo: number, paHi: number, paLo: number): LeafBits {
  let outHi = hi;
  let outLo = lo;
  for (const { word, shift, mask, from } of pieces) {
    const bits = (bitsAt(paHi, paLo, from) & mask) << shift;
    if (word === 0) outLo |= bits;
    else outHi |= bits;
  }
  return { hi: outHi >>> 0, lo: outLo >>> 0 };
}

function extract(pieces: readonly AddressPiece[], hi: number, lo: number): LeafBits {
  let outHi = 0;
  let outLo = 0;
  for (const { word, shift, mask, from } of pieces) {
    const bits = ((word === 0 ? lo : hi) >>> shift) & mask;
    if (from >= 32) outHi |= bits << (from - 32);
    else {
      outLo |= bits << from;
      if (from > 0) outHi |= bits >>> (32 - from);
    }
  }
  return { hi: outHi >>> 0, lo: outLo >>> 0 };
}
