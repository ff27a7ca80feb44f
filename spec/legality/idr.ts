/** Which combinations of ID registers an SMMU may show (IHI 0070 6.3.1 to 6.3.6, 6.3.45, 3.3.2, 3.4). */
import { type Caps, capsOf, type IdValues } from '../caps.ts';
import { IDR0, IDR5, IDR6 } from '../id-registers.ts';
import type { Problem } from './rule.ts';

/** A rule about the ID registers of one SMMU. */
export interface IdRule {
  readonly id: string;
  readonly section: string;
  readonly fields: readonly string[];
  /** What is wrong, or undefined. caps: decoded from ids. */
  broken(ids: IdValues, caps: Caps): string | undefined;
}

/** Names of the flags among `names` that are set, as a message; undefined if none is. */
function mustBeClear(caps: Caps, names: readonly (keyof Caps & string)[], why: string): string | undefined {
  const set = names.filter((name) => caps[name] === true);
  return set.length === 0 ? undefined : `${set.join(', ')} = 1, legal 0 (${why})`;
}

/** Names of the flags among `names` that are clear, as a message; undefined if none is. */
function mustBeSet(caps: Caps, names: readonly (keyof Caps & string)[], why: string): string | undefined {
  const clear = names.filter((name) => caps[name] === false);
  return clear.length === 0 ? undefined : `${clear.join(', ')} = 0, legal 1 (${why})`;
}

/** Largest value of a size field, and the first of `pairs` that is above its own. */
const above = (pairs: readonly (readonly [name: string, value: number, max: number])[]): string | undefined => {
  const found = pairs.find(([, value, max]) => value > max);
  return found === undefined ? undefined : `${found[0]} = ${found[1]}, legal 0..${found[2]}`;
};

const TWO_LEVEL = IDR0.fields.ST_LEVEL.values.TWO_LEVEL;
const AARCH64_ONLY = IDR0.fields.TTF.values.AARCH64;
const NO_STALL = IDR0.fields.STALL_MODEL.values.NO_STALL;
const OAS_56 = IDR5.fields.OAS.values.BITS_56;

function reservedEncoding(caps: Caps): string | undefined {
  if (caps.TTF === 0) return 'IDR0.TTF = 0 is reserved, legal 1..3';
  if (caps.TTENDIAN === 1) return 'IDR0.TTENDIAN = 1 is reserved, legal 0, 2 and 3';
  if (caps.STALL_MODEL === 3) return 'IDR0.STALL_MODEL = 3 is reserved, legal 0..2';
  if (caps.ST_LEVEL > TWO_LEVEL) return `IDR0.ST_LEVEL = ${caps.ST_LEVEL} is reserved, legal 0 and 1`;
  if (caps.BBML === 3) return 'IDR3.BBML = 3 is reserved, legal 0..2';
  if (caps.VAX === 3) return 'IDR5.VAX = 3 is reserved, legal 0..2';
  return undefined;
}

function byVersion(caps: Caps): string | undefined {
  const { minor } = caps;
  const version = `SMMUv3.${minor}`;
  if (minor === 0) {
    if (caps.VAX !== 0) return `IDR5.VAX = ${caps.VAX}, legal 0 (${version})`;
    if (caps.OAS > 48) return `IDR5.OAS is ${caps.OAS} bits, legal up to 48 (${version})`;
    return mustBeClear(caps, ['XNX', 'PBHA'], version);
  }
  const needed: (keyof Caps & string)[] = [];
  if (caps.S2P) needed.push('XNX');
  if (caps.S1P) needed.push('HAD');
  if (minor >= 2) needed.push('RIL', 'FWB');
  if (minor >= 2 && caps.S1P && caps.S2P) needed.push('Hyp');
  if (minor >= 3) needed.push('E0PD');
  if (minor >= 3 && caps.S2P) needed.push('PTWNNC');
  if (minor >= 4) needed.push('EPAN');
  if (minor >= 4 && caps.S2P) needed.push('MTEPERM');
  if (minor >= 2 && caps.BBML === 0) return `IDR3.BBML = 0, legal 1 and 2 (${version})`;
  return mustBeSet(caps, needed, version);
}

/** The rules about ID registers, in the order of their registers. */
export const ID_RULES: readonly IdRule[] = [
  {
    id: 'IDR-K0',
    section: '6.3.1, 6.3.4, 6.3.6',
    fields: ['TTF', 'TTENDIAN', 'STALL_MODEL', 'ST_LEVEL', 'BBML', 'VAX'],
    broken: (_ids, caps) => reservedEncoding(caps),
  },
  {
    id: 'IDR-K1',
    section: '6.3.1',
    fields: ['ATS', 'ATSRECERR', 'PRI', 'NS1ATS', 'PASIDTT', 'DPT'],
    broken: (_ids, caps) =>
      caps.ATS ? undefined : mustBeClear(caps, ['ATSRECERR', 'PRI', 'NS1ATS', 'PASIDTT', 'DPT'], 'ATS=0'),
  },
  {
    id: 'IDR-K2',
    section: '6.3.1',
    fields: ['VATOS', 'ATOS', 'S1P', 'S2P'],
    broken: (_ids, caps) => (caps.VATOS ? mustBeSet(caps, ['ATOS', 'S1P', 'S2P'], 'VATOS=1') : undefined),
  },
  {
    id: 'IDR-K3',
    section: '6.3.1, 6.3.4',
    fields: ['S2P', 'VMW', 'Hyp', 'XNX', 'PTWNNC', 'S2PI', 'MTEPERM', 'NS1ATS'],
    broken: (_ids, caps) =>
      caps.S2P ? undefined : mustBeClear(caps, ['VMW', 'Hyp', 'XNX', 'PTWNNC', 'S2PI', 'MTEPERM', 'NS1ATS'], 'S2P=0'),
  },
  {
    id: 'IDR-K4',
    section: '6.3.1, 6.3.4',
    fields: ['S1P', 'Hyp', 'HAD', 'AIE', 'S1PI', 'THE', 'NS1ATS'],
    broken: (_ids, caps) =>
      caps.S1P ? undefined : mustBeClear(caps, ['Hyp', 'HAD', 'AIE', 'S1PI', 'THE', 'NS1ATS'], 'S1P=0'),
  },
  {
    id: 'IDR-K5',
    section: '6.3.1, 6.3.6',
    fields: ['TTF', 'GRAN4K', 'D128', 'DPT'],
    broken: (_ids, caps) =>
      caps.aarch32
        ? (mustBeSet(caps, ['GRAN4K'], `TTF=${caps.TTF}`) ?? mustBeClear(caps, ['D128', 'DPT'], `TTF=${caps.TTF}`))
        : undefined,
  },
  {
    id: 'IDR-K6',
    section: '6.3.2, 6.3.45',
    fields: ['ECMDQ', 'COHACC', 'MSI', 'QUEUES_PRESET', 'IDR6'],
    broken: ({ IDR6: idr6 = 0 }, caps) => {
      if (!caps.ECMDQ) return idr6 === 0 ? undefined : `IDR6 = 0x${idr6.toString(16)}, legal 0 (ECMDQ=0)`;
      return (
        mustBeSet(caps, ['COHACC', 'MSI'], 'ECMDQ=1') ??
        mustBeClear(caps, ['QUEUES_PRESET'], 'ECMDQ=1') ??
        above([
          ['CMDQ_CONTROL_PAGE_LOG2NUMP', IDR6.of(idr6, 'CMDQ_CONTROL_PAGE_LOG2NUMP'), 8],
          ['CMDQ_CONTROL_PAGE_LOG2NUMQ', IDR6.of(idr6, 'CMDQ_CONTROL_PAGE_LOG2NUMQ'), 8],
        ])
      );
    },
  },
  {
    id: 'IDR-K7',
    section: '6.3.2, 3.3.1.2',
    fields: ['CMDQS', 'EVENTQS', 'PRIQS', 'SSIDSIZE', 'SIDSIZE', 'ST_LEVEL'],
    broken: (_ids, caps) => {
      const size = above([
        ['IDR1.CMDQS', caps.CMDQS, 19],
        ['IDR1.EVENTQS', caps.EVENTQS, 19],
        ['IDR1.PRIQS', caps.PRI ? caps.PRIQS : 0, 19],
        ['IDR1.SSIDSIZE', caps.SSIDSIZE, 20],
        ['IDR1.SIDSIZE', caps.SIDSIZE, 32],
      ]);
      if (size !== undefined) return size;
      return caps.SIDSIZE >= 7 && caps.ST_LEVEL !== TWO_LEVEL
        ? `IDR0.ST_LEVEL = ${caps.ST_LEVEL}, legal 1 (SIDSIZE ${caps.SIDSIZE}: more than 64 streams)`
        : undefined;
    },
  },
  {
    id: 'IDR-K8',
    section: '6.3.2',
    fields: ['REL', 'TABLES_PRESET', 'QUEUES_PRESET'],
    broken: (_ids, caps) =>
      caps.TABLES_PRESET || caps.QUEUES_PRESET ? undefined : mustBeClear(caps, ['REL'], 'nothing is preset'),
  },
  {
    id: 'IDR-K9',
    section: '6.3.4',
    fields: ['PPS', 'PASIDTT', 'PRI', 'SSIDSIZE'],
    broken: (_ids, caps) => {
      if (caps.SSIDSIZE === 0) return mustBeClear(caps, ['PPS', 'PASIDTT'], 'SSIDSIZE=0');
      return caps.PRI ? undefined : mustBeClear(caps, ['PPS'], 'PRI=0');
    },
  },
  {
    id: 'IDR-K10',
    section: '6.3.4',
    fields: ['PBHA', 'HAD', 'S2PO', 'S2PI', 'THE'],
    broken: (_ids, caps) => {
      if (caps.PBHA && !caps.HAD) return mustBeSet(caps, ['HAD'], 'PBHA=1');
      if (caps.S2PO && !caps.S2PI) return mustBeSet(caps, ['S2PI'], 'S2PO=1');
      return caps.THE && caps.S2P ? mustBeSet(caps, ['S2PI'], 'THE=1, S2P=1') : undefined;
    },
  },
  {
    id: 'IDR-K11',
    section: '6.3.6',
    fields: ['VAX', 'GRAN64K', 'DS', 'D128'],
    broken: (_ids, caps) => {
      if (caps.VAX >= 1 && !caps.GRAN64K && !(caps.DS && (caps.GRAN4K || caps.GRAN16K)))
        return `IDR5.VAX = ${caps.VAX}, legal 0 (neither GRAN64K, nor DS with a smaller granule)`;
      return caps.VAX === 2 ? mustBeSet(caps, ['D128'], 'VAX=2') : undefined;
    },
  },
  {
    id: 'IDR-K12',
    section: '6.3.6',
    fields: ['DS', 'VAX', 'GRAN4K', 'GRAN16K'],
    broken: (_ids, caps) =>
      caps.DS && (caps.VAX === 0 || !(caps.GRAN4K || caps.GRAN16K))
        ? `IDR5.DS = 1 needs VAX of 1 or 2 and the 4k or 16k granule (VAX ${caps.VAX}, GRAN4K=${+caps.GRAN4K}, GRAN16K=${+caps.GRAN16K})`
        : undefined,
  },
  {
    id: 'IDR-K13',
    section: '6.3.6',
    fields: ['D128', 'TTF', 'S1PI', 'S2PO', 'AIE', 'MTEPERM'],
    broken: (_ids, caps) => {
      if (!caps.D128) return undefined;
      if (caps.TTF !== AARCH64_ONLY) return `IDR0.TTF = ${caps.TTF}, legal 2 (D128=1)`;
      return mustBeSet(caps, ['S1PI', 'S2PO', 'AIE', 'MTEPERM'], 'D128=1');
    },
  },
  {
    id: 'IDR-K14',
    section: '6.3.6',
    fields: ['OAS', 'GRAN64K', 'DS', 'D128'],
    broken: (ids, caps) => {
      if (IDR5.of(ids.IDR5, 'OAS') === OAS_56 && !caps.D128) return 'IDR5.OAS is 56 bits, legal up to 52 (D128=0)';
      return caps.OAS === 52 && !caps.GRAN64K && !caps.DS && !caps.D128
        ? 'IDR5.OAS is 52 bits, legal up to 48 (GRAN64K, DS and D128 are 0)'
        : undefined;
    },
  },
  {
    id: 'IDR-K15',
    section: '6.3.6',
    fields: ['STALL_MAX', 'STALL_MODEL'],
    broken: (_ids, caps) =>
      caps.STALL_MODEL === NO_STALL && caps.STALL_MAX !== 0
        ? `IDR5.STALL_MAX = ${caps.STALL_MAX}, legal 0 (STALL_MODEL=1: no stall)`
        : undefined,
  },
  {
    id: 'IDR-K16',
    section: '2.2, 2.9',
    fields: ['VAX', 'XNX', 'PBHA', 'OAS', 'HAD', 'BBML', 'RIL', 'FWB', 'Hyp', 'E0PD', 'PTWNNC', 'EPAN', 'MTEPERM'],
    broken: (_ids, caps) => byVersion(caps),
  },
  {
    id: 'IDR-K17',
    section: '3.3.2',
    fields: ['S1P', 'S2P'],
    broken: (_ids, caps) =>
      caps.S1P || caps.S2P ? undefined : 'IDR0.S1P = 0 and S2P = 0, at least one stage is needed',
  },
];

/** Every rule that the ID registers of an SMMU break. An absent AIDR counts as SMMUv3.1. */
export function idProblems(ids: IdValues): Problem[] {
  const caps = capsOf(ids);
  const out: Problem[] = [];
  for (const { id, section, fields, broken } of ID_RULES) {
    const message = broken(ids, caps);
    if (message !== undefined) out.push({ rule: id, section, fields, message });
  }
  return out;
}
