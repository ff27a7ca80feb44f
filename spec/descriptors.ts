/**
 * VMSAv8-64 translation table descriptors, as variants by stage, granule, level and kind, and the geometry of the
 * tables. Source: Arm Architecture Reference Manual (DDI 0487) D8.3, named by IHI 0070 3.4 and 3.13.
 *
 * Attribute names are those of DDI 0487. It has no one-word name for the two address fields: here they are
 * `NextLevelTableAddress` (table) and `OutputAddress` (block, page), after its "next-level table address" and
 * "output address".
 */
import { type BitRange, type Field, type Fields, type Layout, LayoutError, layout, type Words } from './layout.ts';

/** Translation granule: size of a page and of a full table. */
export type Granule = '4k' | '16k' | '64k';

/** Lookup level; -1 exists with the 4 KB granule and 52-bit input only. */
export type Level = -1 | 0 | 1 | 2 | 3;

/** What a descriptor is. Reserved encodings are 'invalid': they fault as an invalid descriptor does. */
export type DescriptorKind = 'invalid' | 'table' | 'block' | 'page';

/** What, besides granule and level, decides the format of a descriptor. */
export interface DescriptorFormat {
  /** CD.DS or STE.S2DS: 52-bit sizes with the 4 KB and 16 KB granules. Without effect on 64 KB. */
  readonly ds?: boolean;
  /** The effective output size is 52 bits. Only the 64 KB granule's format depends on it. */
  readonly pa52?: boolean;
}

/** One lookup level of a granule. */
export interface LevelGeometry {
  readonly level: Level;
  /** Lowest input address bit of the index: an entry covers 2^shift bytes. */
  readonly shift: number;
  /** Input address bits of the index without concatenation, for the largest input size. */
  readonly index: BitRange;
  /** Whether a block may stand here: always, with DS=1 only, with 52-bit output only (64 KB), or never. */
  readonly block: 'always' | 'ds' | 'pa52' | 'never';
  /** Descriptors in a run with the Contiguous bit; 0: none. */
  readonly contiguous: number;
  /** What the level itself needs: DS=1, or nothing. */
  readonly needs: 'ds' | undefined;
}

/** The tables of one granule. */
export interface GranuleGeometry {
  /** log2 of the page size. */
  readonly shift: number;
  /** Index bits of a full table. */
  readonly stride: number;
  /** Levels from the highest (smallest number) to 3. */
  readonly levels: readonly LevelGeometry[];
}

const at = (
  level: Level,
  index: BitRange,
  block: LevelGeometry['block'],
  contiguous: number,
  needs?: 'ds',
): LevelGeometry => ({ level, shift: index[1], index, block, contiguous, needs });

/** Geometry of the tables by granule (DDI 0487 D8.2). Index ranges are those of the largest input size. */
export const GEOMETRY: Readonly<Record<Granule, GranuleGeometry>> = {
  '4k': {
    shift: 12,
    stride: 9,
    levels: [
      at(-1, [51, 48], 'never', 0, 'ds'),
      at(0, [47, 39], 'ds', 0),
      at(1, [38, 30], 'always', 16),
      at(2, [29, 21], 'always', 16),
      at(3, [20, 12], 'never', 16),
    ],
  },
  '16k': {
    shift: 14,
    stride: 11,
    levels: [
      at(0, [51, 47], 'never', 0),
      at(1, [46, 36], 'ds', 0),
      at(2, [35, 25], 'always', 32),
      at(3, [24, 14], 'never', 128),
    ],
  },
  '64k': {
    shift: 16,
    stride: 13,
    levels: [at(1, [51, 42], 'pa52', 0), at(2, [41, 29], 'always', 32), at(3, [28, 16], 'never', 32)],
  },
};

/** Most tables that a stage 2 walk may start with side by side (concatenation), as log2 (DDI 0487 D8.2). */
export const MAX_CONCATENATION_LOG2 = 4;

/** Bytes of a VMSAv8-64 descriptor, as log2. */
export const DESCRIPTOR_LOG2 = 3;

/** Geometry of one level. @throws LayoutError if the granule has no such level. */
export function levelGeometry(granule: Granule, level: Level): LevelGeometry {
  const found = GEOMETRY[granule].levels.find((candidate) => candidate.level === level);
  if (found === undefined) throw new LayoutError(`the ${granule} granule has no level ${level}`);
  return found;
}

/** Whether a block descriptor may stand at a level. */
export function blockAllowed(granule: Granule, level: Level, format: DescriptorFormat = {}): boolean {
  const { block } = levelGeometry(granule, level);
  return block === 'always' || (block === 'ds' && format.ds === true) || (block === 'pa52' && format.pa52 === true);
}

/** Level at which a stage 1 walk starts (DDI 0487 D8.2). inputBits: width of the input address, 64 - TxSZ. */
export function stage1StartLevel(granule: Granule, inputBits: number): number {
  const { shift, stride } = GEOMETRY[granule];
  return 4 - Math.ceil((inputBits - shift) / stride);
}

/** The type bits of every descriptor (DDI 0487 D8.3). Bit 1 tells table or page (1) from block (0). */
export const DESCRIPTOR_TYPE = layout(
  'descriptor type',
  { bytes: 8, section: 'DDI 0487 D8.3' },
  {
    Valid: { bits: [0, 0], text: '0: translation fault' },
    Type: { bits: [1, 1], values: { BLOCK: 0, TABLE_PAGE: 1 }, text: 'at level 3, 0 is reserved and faults' },
    rest: { bits: [63, 2], reserved: 'SOFTWARE' },
  },
);

const VALID = DESCRIPTOR_TYPE.slot('Valid');
const TYPE = DESCRIPTOR_TYPE.slot('Type');

/** What a descriptor is, by its type bits and the level it was read at. words: its two 32-bit halves. */
export function descriptorKind(
  words: Words,
  granule: Granule,
  level: Level,
  format: DescriptorFormat = {},
): DescriptorKind {
  const low = words[VALID.word] ?? 0;
  if (((low >>> VALID.shift) & VALID.mask) === 0) return 'invalid';
  const type = (low >>> TYPE.shift) & TYPE.mask;
  if (level === 3) return type === 1 ? 'page' : 'invalid';
  if (type === 1) return 'table';
  return blockAllowed(granule, level, format) ? 'block' : 'invalid';
}

const TYPE_BITS = {
  Valid: { bits: [0, 0], text: '0: translation fault' },
  Type: { bits: [1, 1], values: { BLOCK: 0, TABLE_PAGE: 1 } },
} as const satisfies Fields;

const reserved = (hi: number, lo: number, kind: 'RES0' | 'SOFTWARE' = 'RES0'): Record<string, Field> =>
  hi < lo ? {} : { [`${kind}_${hi === lo ? hi : `${hi}_${lo}`}`]: { bits: [hi, lo], reserved: kind } };

/** Whether address bits above 47 are folded into [9:8] (DS) or [15:12] (64 KB with 52-bit output). */
const folded = (granule: Granule, format: DescriptorFormat): 'ds' | 'pa52' | undefined => {
  if (granule === '64k') return format.pa52 === true ? 'pa52' : undefined;
  return format.ds === true ? 'ds' : undefined;
};

/** The address field, the bits 49:12 that are zero beside it, and nT of a block. */
function addressFields(
  name: 'OutputAddress' | 'NextLevelTableAddress',
  granule: Granule,
  low: number,
  format: DescriptorFormat,
): Record<string, Field> {
  const fold = folded(granule, format);
  const main: BitRange = [fold === 'ds' ? 49 : 47, low];
  const high: BitRange = fold === 'ds' ? [9, 8] : [15, 12];
  const zeroFrom = fold === 'pa52' ? 16 : 12;
  const block = low > GEOMETRY[granule].shift;
  return {
    [name]: { bits: fold === undefined ? main : [high, main], address: low, text: 'address, without its low bits' },
    ...(block
      ? { ...reserved(15, zeroFrom), nT: { bits: [16, 16], text: 'block translation entry' }, ...reserved(low - 1, 17) }
      : reserved(low - 1, zeroFrom)),
    ...reserved(49, main[0] + 1),
  };
}

const PBHA = {
  bits: [62, 59],
  when: 'IDR3.PBHA',
  text: 'page-based hardware attributes; else free for software',
} as const;

const shareability = (granule: Granule, format: DescriptorFormat): Record<string, Field> =>
  folded(granule, format) === 'ds' ? {} : { SH: { bits: [9, 8], values: { NSH: 0, OSH: 2, ISH: 3 } } };

const stage1Leaf = (granule: Granule, low: number, format: DescriptorFormat): Fields => ({
  ...TYPE_BITS,
  AttrIndx: { bits: [4, 2], text: 'which byte of MAIR; bit 3 is bit 59 if CD.AIE=1' },
  NS: { bits: [5, 5], text: 'Secure and Realm walks only' },
  AP: {
    bits: [7, 6],
    values: { PRIV_RW: 0, RW: 1, PRIV_RO: 2, RO: 3 },
    text: 'AP[2:1]: bit 7 read-only, bit 6 unprivileged access',
  },
  ...shareability(granule, format),
  AF: { bits: [10, 10], text: 'accessed' },
  nG: { bits: [11, 11], text: 'not global: tagged with the ASID' },
  ...addressFields('OutputAddress', granule, low, format),
  GP: { bits: [50, 50], text: 'guarded page; ignored by an SMMU' },
  DBM: { bits: [51, 51], text: 'dirty bit modifier' },
  Contiguous: { bits: [52, 52], text: 'one of a run of equal descriptors; Protected if CD.PnCH=1' },
  PXN: { bits: [53, 53], text: 'privileged execute-never; RES0 in EL2 and EL3' },
  UXN: { bits: [54, 54], text: 'unprivileged execute-never; XN in EL2 and EL3' },
  ...reserved(58, 55, 'SOFTWARE'),
  PBHA,
  ...reserved(63, 63, 'SOFTWARE'),
});

const stage2Leaf = (granule: Granule, low: number, format: DescriptorFormat): Fields => ({
  ...TYPE_BITS,
  MemAttr: { bits: [5, 2], text: 'memory type; meaning depends on STE.S2FWB' },
  S2AP: { bits: [7, 6], values: { NONE: 0, RO: 1, WO: 2, RW: 3 }, text: 'bit 6 read, bit 7 write' },
  ...shareability(granule, format),
  AF: { bits: [10, 10], text: 'accessed' },
  ...reserved(11, 11),
  ...addressFields('OutputAddress', granule, low, format),
  ...reserved(50, 50),
  DBM: { bits: [51, 51], text: 'dirty bit modifier' },
  Contiguous: { bits: [52, 52], text: 'one of a run of equal descriptors' },
  XN: {
    bits: [54, 53],
    values: { X: 0, UX: 1, XN: 2, PX: 3 },
    text: 'execute at EL1 and EL0, at EL0, not at all, at EL1; without IDR3.XNX bit 54 alone is XN',
  },
  ...reserved(57, 55, 'SOFTWARE'),
  AssuredOnly: { bits: [58, 58], when: 'IDR3.THE', text: 'AssuredOnly; else free for software' },
  PBHA,
  ...reserved(63, 63),
});

const tableLow = (granule: Granule, format: DescriptorFormat, tail: Fields): Fields => ({
  ...TYPE_BITS,
  ...(folded(granule, format) === 'ds' ? reserved(7, 2, 'SOFTWARE') : reserved(9, 2, 'SOFTWARE')),
  AF: { bits: [10, 10], when: 'IDR0.HTTU=3', text: 'accessed; only with HAFT, else free for software' },
  ...reserved(11, 11, 'SOFTWARE'),
  ...addressFields('NextLevelTableAddress', granule, GEOMETRY[granule].shift, format),
  ...reserved(50, 50),
  ...reserved(58, 51, 'SOFTWARE'),
  ...tail,
});

const stage1Table = (granule: Granule, format: DescriptorFormat): Fields =>
  tableLow(granule, format, {
    PXNTable: { bits: [59, 59], text: 'no privileged execution below' },
    UXNTable: { bits: [60, 60], text: 'no unprivileged execution below; XNTable in EL2 and EL3' },
    APTable: {
      bits: [62, 61],
      values: { NONE: 0, NO_UNPRIV: 1, NO_WRITE: 2, NO_WRITE_NO_UNPRIV: 3 },
      text: 'what is taken away below',
    },
    NSTable: { bits: [63, 63], text: 'Secure walks only' },
  });

const stage2Table = (granule: Granule, format: DescriptorFormat): Fields => tableLow(granule, format, reserved(63, 59));

const INVALID: Fields = { Valid: TYPE_BITS.Valid, ...reserved(63, 1, 'SOFTWARE') };

const lowestBit = (field: Field): number => {
  const [first] = field.bits;
  return typeof first === 'number'
    ? (field.bits[1] as number)
    : Math.min(...(field.bits as readonly BitRange[]).map(([, lo]) => lo));
};

function build(stage: 1 | 2, granule: Granule, level: Level, kind: DescriptorKind, format: DescriptorFormat): Layout {
  const geometry = levelGeometry(granule, level);
  const refuse = (): never => {
    throw new LayoutError(`the ${granule} granule has no ${kind} at level ${level}`);
  };
  if (geometry.needs === 'ds' && format.ds !== true) refuse();
  if (kind === 'table' && level === 3) refuse();
  if (kind === 'page' && level !== 3) refuse();
  if (kind === 'block' && !blockAllowed(granule, level, format)) refuse();
  const leaf = stage === 1 ? stage1Leaf : stage2Leaf;
  const table = stage === 1 ? stage1Table : stage2Table;
  const fields =
    kind === 'invalid' ? INVALID : kind === 'table' ? table(granule, format) : leaf(granule, geometry.shift, format);
  const ordered = Object.entries(fields).toSorted(([, a], [, b]) => lowestBit(a) - lowestBit(b));
  const wide = format.ds === true ? ' DS' : format.pa52 === true ? ' PA52' : '';
  return layout(
    `S${stage} ${granule} L${level}${wide} ${kind}`,
    {
      bytes: 8,
      section: 'DDI 0487 D8.3',
      text: `stage ${stage} ${kind} descriptor, level ${level}, ${granule} granule`,
    },
    Object.fromEntries(ordered),
  );
}

const built = new Map<string, Layout>();

function variant(stage: 1 | 2, granule: Granule, level: Level, kind: DescriptorKind, format: DescriptorFormat): Layout {
  const key = `${stage} ${granule} ${level} ${kind} ${format.ds === true} ${format.pa52 === true}`;
  const known = built.get(key);
  if (known !== undefined) return known;
  const made = build(stage, granule, level, kind, format);
  built.set(key, made);
  return made;
}

/**
 * Layout of a stage 1 descriptor. Field names: Valid, Type; table: NextLevelTableAddress, AF, PXNTable, UXNTable,
 * APTable, NSTable; block and page: AttrIndx, NS, AP, SH (not with DS=1), AF, nG, nT (block), OutputAddress, GP, DBM,
 * Contiguous, PXN, UXN, PBHA. The same arguments give the same object.
 * @throws LayoutError if the granule has no such level, or no such descriptor there.
 */
export function pte1(granule: Granule, level: Level, kind: DescriptorKind, format: DescriptorFormat = {}): Layout {
  return variant(1, granule, level, kind, format);
}

/**
 * Layout of a stage 2 descriptor. Field names: Valid, Type; table: NextLevelTableAddress, AF; block and page: MemAttr,
 * S2AP, SH (not with DS=1), AF, nT (block), OutputAddress, DBM, Contiguous, XN, AssuredOnly, PBHA.
 * The same arguments give the same object.
 * @throws LayoutError if the granule has no such level, or no such descriptor there.
 */
export function pte2(granule: Granule, level: Level, kind: DescriptorKind, format: DescriptorFormat = {}): Layout {
  return variant(2, granule, level, kind, format);
}

/** Every descriptor layout there is, each once: for printers and tests. */
export function descriptorVariants(): Layout[] {
  const out: Layout[] = [];
  for (const granule of ['4k', '16k', '64k'] as const)
    for (const format of granule === '64k' ? [{}, { pa52: true }] : [{}, { ds: true }])
      for (const { level, needs } of GEOMETRY[granule].levels)
        if (needs === undefined || 'ds' in format)
          for (const kind of ['invalid', 'table', 'block', 'page'] as const)
            if (
              kind === 'block'
                ? blockAllowed(granule, level, format)
                : kind === 'invalid' || (kind === 'page') === (level === 3)
            )
              out.push(pte1(granule, level, kind, format), pte2(granule, level, kind, format));
  return out;
}
