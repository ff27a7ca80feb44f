/** What one SMMU can do, decoded once from its ID registers, for rules, decoders and hardware to ask. */
import { AIDR, IDR0, IDR1, IDR2, IDR3, IDR4, IDR5, IDR6, IIDR } from './id-registers.ts';
import { LayoutError, type Register } from './layout.ts';
import { MPAMIDR } from './registers/mpam-dpt.ts';

/** ID register values, 32 bits each. Those that are not given count as zero, AIDR as SMMUv3.1. */
export interface IdValues {
  readonly IDR0: number;
  readonly IDR1: number;
  readonly IDR3: number;
  readonly IDR5: number;
  readonly IDR2?: number | undefined;
  readonly IDR4?: number | undefined;
  readonly IDR6?: number | undefined;
  readonly IIDR?: number | undefined;
  readonly AIDR?: number | undefined;
  readonly MPAMIDR?: number | undefined;
}

/** Register values as {@link featureMet} looks them up. */
export type RegisterValues = Readonly<Record<string, number>>;

const REGISTERS: ReadonlyMap<string, Register> = new Map<string, Register>(
  ([IDR0, IDR1, IDR2, IDR3, IDR4, IDR5, IDR6, IIDR, AIDR, MPAMIDR] as readonly Register[]).map((r) => [r.name, r]),
);

/** Address sizes in bits by the encoding of IDR5.OAS, STE.S2PS and CD.IPS, each at its widest (IHI 0070 6.3.6). */
export const ADDRESS_BITS = [32, 36, 40, 42, 44, 48, 52, 56] as const;

/** An SMMU without AIDR is taken for v3.1: the oldest version whose choices today's rules follow. */
const DEFAULT_AIDR = AIDR.value({ ArchMinorRev: 1 });

const flags = <R extends string>(register: Register, value: number, names: readonly R[]): Record<R, boolean> =>
  Object.fromEntries(names.map((name) => [name, register.of(value, name) !== 0])) as Record<R, boolean>;

const numbers = <R extends string>(register: Register, value: number, names: readonly R[]): Record<R, number> =>
  Object.fromEntries(names.map((name) => [name, register.of(value, name)])) as Record<R, number>;

const FLAGS0 = [
  'S2P',
  'S1P',
  'COHACC',
  'BTM',
  'DORMHINT',
  'Hyp',
  'ATS',
  'NS1ATS',
  'ASID16',
  'MSI',
  'SEV',
  'ATOS',
  'PRI',
  'VMW',
  'VMID16',
  'CD2L',
  'VATOS',
  'ATSRECERR',
  'TERM_MODEL',
  'RME_IMPL',
] as const;
const NUMBERS0 = ['TTF', 'HTTU', 'TTENDIAN', 'STALL_MODEL', 'ST_LEVEL'] as const;
const FLAGS1 = ['ATTR_PERMS_OVR', 'ATTR_TYPES_OVR', 'REL', 'QUEUES_PRESET', 'TABLES_PRESET', 'ECMDQ'] as const;
const NUMBERS1 = ['SIDSIZE', 'SSIDSIZE', 'PRIQS', 'EVENTQS', 'CMDQS'] as const;
const FLAGS3 = [
  'HAD',
  'PBHA',
  'XNX',
  'PPS',
  'MPAM',
  'FWB',
  'STT',
  'RIL',
  'E0PD',
  'PTWNNC',
  'DPT',
  'PASIDTT',
  'EPAN',
  'S1PI',
  'S2PI',
  'S2PO',
  'THE',
  'MTEPERM',
  'AIE',
] as const;
const FLAGS5 = ['GRAN4K', 'GRAN16K', 'GRAN64K', 'DS', 'D128'] as const;

type Flag = (typeof FLAGS0 | typeof FLAGS1 | typeof FLAGS3 | typeof FLAGS5)[number];
type Count = (typeof NUMBERS0 | typeof NUMBERS1)[number];

/** What an SMMU can do. Fields of the ID registers under their own names: booleans if one bit wide, else raw values. */
export interface Caps extends Readonly<Record<Flag, boolean>>, Readonly<Record<Count, number>> {
  /** IDR3.BBML, 0 to 2. */
  readonly BBML: number;
  /** IDR5.VAX, 0 to 2. */
  readonly VAX: number;
  /** IDR5.STALL_MAX. */
  readonly STALL_MAX: number;
  /** Output address size in bits: 32 to 56. */
  readonly OAS: number;
  /** Intermediate address size in bits: 40 for VMSAv8-32, OAS for VMSAv8-64, the larger of both (IHI 0070 3.4). */
  readonly IAS: number;
  /** Virtual address bits of one TTB by IDR5.VAX: 48, 52 or 56. */
  readonly vaBits: number;
  /** Width of an ASID: 8 or 16. */
  readonly asidBits: 8 | 16;
  /** Width of a VMID: 8 or 16. */
  readonly vmidBits: 8 | 16;
  /** IDR0.TTF[0]: VMSAv8-32 LPAE tables. */
  readonly aarch32: boolean;
  /** IDR0.TTF[1]: VMSAv8-64 tables. */
  readonly aarch64: boolean;
  /** AIDR.ArchMinorRev: 1 for SMMUv3.1. */
  readonly minor: number;
  /** MPAMIDR.PARTID_MAX; 0 without MPAM. */
  readonly PARTID_MAX: number;
  /** MPAMIDR.PMG_MAX; 0 without MPAM. */
  readonly PMG_MAX: number;
  /** The register values all this was decoded from, by name. */
  readonly registers: RegisterValues;
}

/** A function of what an SMMU can do, worked out once for each. */
export function perCaps<T>(make: (caps: Caps) => T): (caps: Caps) => T {
  const known = new WeakMap<Caps, { readonly value: T }>();
  return (caps) => {
    let found = known.get(caps);
    if (found === undefined) {
      found = { value: make(caps) };
      known.set(caps, found);
    }
    return found.value;
  };
}

/** What was decoded lately, by register values: labs are made by the thousand from a handful of SMMUs. */
const decoded = new Map<string, Caps>();
const MOST_DECODED = 256;
const ID_NAMES = ['IDR0', 'IDR1', 'IDR2', 'IDR3', 'IDR4', 'IDR5', 'IDR6', 'IIDR', 'AIDR', 'MPAMIDR'] as const;

/** Decodes ID registers. Reserved values are taken as the specification says they behave; see the legality of IDRs. */
export function capsOf(ids: IdValues): Caps {
  const key = ID_NAMES.map((name) => ids[name]).join(' ');
  const known = decoded.get(key);
  if (known !== undefined) return known;
  if (decoded.size >= MOST_DECODED) decoded.clear();
  const caps = Object.freeze(decode(ids));
  decoded.set(key, caps);
  return caps;
}

function decode(ids: IdValues): Caps {
  const aidr = ids.AIDR ?? DEFAULT_AIDR;
  const mpam = IDR3.of(ids.IDR3, 'MPAM') === 1 ? (ids.MPAMIDR ?? 0) : 0;
  const OAS = ADDRESS_BITS[IDR5.of(ids.IDR5, 'OAS')] ?? 32;
  const VAX = IDR5.of(ids.IDR5, 'VAX');
  const TTF = IDR0.of(ids.IDR0, 'TTF');
  const flags0 = flags(IDR0, ids.IDR0, FLAGS0);
  return {
    ...flags0,
    ...numbers(IDR0, ids.IDR0, NUMBERS0),
    ...flags(IDR1, ids.IDR1, FLAGS1),
    ...numbers(IDR1, ids.IDR1, NUMBERS1),
    ...flags(IDR3, ids.IDR3, FLAGS3),
    ...flags(IDR5, ids.IDR5, FLAGS5),
    BBML: IDR3.of(ids.IDR3, 'BBML'),
    VAX,
    STALL_MAX: IDR5.of(ids.IDR5, 'STALL_MAX'),
    OAS,
    IAS: Math.max((TTF & 1) !== 0 ? 40 : 0, (TTF & 2) !== 0 ? OAS : 0),
    vaBits: VAX === 0 ? 48 : VAX === 1 ? 52 : 56,
    asidBits: flags0.ASID16 ? 16 : 8,
    vmidBits: flags0.VMID16 ? 16 : 8,
    aarch32: (TTF & 1) !== 0,
    aarch64: (TTF & 2) !== 0,
    minor: AIDR.of(aidr, 'ArchMinorRev'),
    PARTID_MAX: MPAMIDR.of(mpam, 'PARTID_MAX'),
    PMG_MAX: MPAMIDR.of(mpam, 'PMG_MAX'),
    registers: {
      IDR0: ids.IDR0,
      IDR1: ids.IDR1,
      IDR2: ids.IDR2 ?? 0,
      IDR3: ids.IDR3,
      IDR4: ids.IDR4 ?? 0,
      IDR5: ids.IDR5,
      IDR6: ids.IDR6 ?? 0,
      IIDR: ids.IIDR ?? 0,
      AIDR: aidr,
      MPAMIDR: mpam,
    },
  };
}

/** One condition of a `when`. */
interface Condition {
  readonly not: boolean;
  readonly register: string;
  readonly field: string;
  readonly compare: '=' | '>=' | undefined;
  readonly value: number;
}

const CONDITION = /^(!?)(\w+)\.(\w+)(?:(=|>=)(\d+))?$/;

const parsed = new Map<string, Condition>();

function condition(text: string): Condition {
  const known = parsed.get(text);
  if (known !== undefined) return known;
  const found = CONDITION.exec(text);
  if (found === null) throw new LayoutError(`'${text}' is not a condition like IDR3.FWB, IDR0.HTTU=3 or !IDR5.D128`);
  const [, not, register = '', field = '', compare, value] = found;
  const made: Condition = {
    not: not === '!',
    register,
    field,
    compare: compare === '=' || compare === '>=' ? compare : undefined,
    value: Number(value ?? 0),
  };
  parsed.set(text, made);
  return made;
}

function met({ not, register, field, compare, value }: Condition, registers: RegisterValues): boolean {
  // A register of another Security state (S_IDR1, R_IDR3) has no table here: that state is absent, all its bits 0.
  const actual = REGISTERS.get(register)?.of(registers[register] ?? 0, field) ?? 0;
  const holds = compare === undefined ? actual !== 0 : compare === '=' ? actual === value : actual >= value;
  return holds !== not;
}

/**
 * Whether an SMMU has what a field or register needs. when: as {@link Field.when}; undefined needs nothing, and all of
 * a list must hold. Registers of other Security states read as zero.
 * @throws LayoutError for text that is no condition, and for a field its register does not have.
 */
export function featureMet(
  when: string | readonly string[] | undefined,
  caps: { readonly registers: RegisterValues },
): boolean {
  if (when === undefined) return true;
  if (typeof when === 'string') return met(condition(when), caps.registers);
  for (const one of when) if (!met(condition(one), caps.registers)) return false;
  return true;
}
