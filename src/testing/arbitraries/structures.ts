/**
 * Arbitraries of records: any, legal, illegal, and pairs at a boundary. What is legal is asked of the rules in
 * spec/legality, the very ones that the hardware asks.
 */
import fc from 'fast-check';
import {
  type Caps,
  CD,
  COMMANDS,
  cdProblems,
  commandProblems,
  type Layout,
  type Problem,
  STE,
  steProblems,
  type Words,
} from '../../../spec/index.ts';

/** Two records that differ in one field by one: the one is legal, the other is not. */
export interface Boundary {
  readonly field: string;
  readonly legal: Words;
  readonly illegal: Words;
  /** The rules that the illegal one breaks. */
  readonly rules: readonly string[];
}

/** The arbitraries of one kind of record. */
export interface RecordArbitraries {
  /** Any bits, with values that matter more often than chance has them. */
  readonly any: fc.Arbitrary<Words>;
  readonly legal: fc.Arbitrary<Words>;
  /** A legal one with one field changed for the worse. */
  readonly illegal: fc.Arbitrary<Words>;
  readonly boundary: fc.Arbitrary<Boundary>;
}

/** What has to be known of a kind of record. */
interface Kind {
  readonly layout: Layout;
  /** Records to start from; those that are illegal on this SMMU are left out. */
  readonly bases: readonly Words[];
  readonly problems: (words: Words) => readonly Problem[];
  /** Fields that legal ones leave as they are. */
  readonly fixed: ReadonlySet<string>;
  /** Fields that illegal ones leave as they are, too. */
  readonly pinned?: ReadonlySet<string>;
}

/** One field and a value for it. */
interface Edit {
  readonly field: string;
  readonly value: bigint;
}

/** Fields this narrow are tried in full. */
const NARROW = 6;

/** Values of a field that matter: its ends, its encodings, and all of a narrow one. */
function interesting(layout: Layout, name: string): bigint[] {
  const width = layout.width(name);
  const top = (1n << BigInt(width)) - 1n;
  const named = Object.values(layout.field(name).values ?? {}).map(BigInt);
  const all = width <= NARROW ? Array.from({ length: 2 ** width }, (_, i) => BigInt(i)) : [];
  return [...new Set([0n, 1n, top - 1n, top, 1n << BigInt(width >> 1), ...named, ...all])].filter(
    (v) => v >= 0n && v <= top,
  );
}

const fieldsOf = ({ layout, fixed }: Kind): string[] => layout.names.filter((name) => !fixed.has(name));

function edit(kind: Kind): fc.Arbitrary<Edit> {
  const { layout } = kind;
  return fc.constantFrom(...fieldsOf(kind)).chain((field) => {
    const top = (1n << BigInt(layout.width(field))) - 1n;
    const value = fc.oneof(fc.constantFrom(...interesting(layout, field)), fc.bigInt({ min: 0n, max: top }));
    return value.map((one) => ({ field, value: one }));
  });
}

function edited(layout: Layout, words: Words, { field, value }: Edit): Words {
  const out = words.slice();
  layout.set(out, field, value);
  return out;
}

const EDITS = { maxLength: 12, size: 'max' } as const;

/** Edits that leave the record legal are kept, the others are not: always legal, and far from where it began. */
const legalOf = (kind: Kind): fc.Arbitrary<Words> =>
  fc.tuple(fc.constantFrom(...kind.bases), fc.array(edit(kind), EDITS)).map(([base, edits]) => {
    let words: Words = base.slice();
    for (const one of edits) {
      const next = edited(kind.layout, words, one);
      if (kind.problems(next).length === 0) words = next;
    }
    return words;
  });

/** All single changes to interesting values that break a rule, by the first rule that they break. */
function breaking(kind: Kind, words: Words): Words[][] {
  const out = new Map<string, Words[]>();
  for (const field of fieldsOf({ ...kind, fixed: kind.pinned ?? NONE }))
    for (const value of interesting(kind.layout, field)) {
      const next = edited(kind.layout, words, { field, value });
      const [problem] = kind.problems(next);
      if (problem === undefined) continue;
      const same = out.get(problem.rule);
      if (same === undefined) out.set(problem.rule, [next]);
      else same.push(next);
    }
  return [...out.values()];
}

/** Neighbouring values of a field of which one is legal and the other is not. */
function boundaries(kind: Kind, words: Words): Boundary[] {
  const { layout, problems } = kind;
  const out: Boundary[] = [];
  for (const field of fieldsOf(kind)) {
    const width = layout.width(field);
    if (width > NARROW) continue;
    let before: { words: Words; rules: string[] } | undefined;
    for (let value = 0n; value < 1n << BigInt(width); value++) {
      const next = edited(layout, words, { field, value });
      const here = { words: next, rules: problems(next).map(({ rule }) => rule) };
      if (before !== undefined && (before.rules.length === 0) !== (here.rules.length === 0)) {
        const [legal, illegal] = before.rules.length === 0 ? [before, here] : [here, before];
        out.push({ field, legal: legal.words, illegal: illegal.words, rules: illegal.rules });
      }
      before = here;
    }
  }
  return out;
}

/** @throws RangeError if every record to start from is illegal: the SMMU does not know this kind */
function arbitrariesOf(given: Kind): RecordArbitraries {
  const { layout, problems } = given;
  const bases = given.bases.filter((words) => problems(words).length === 0);
  const kind: Kind = { ...given, bases };
  const [first] = bases;
  if (first === undefined) {
    const [problem] = given.bases.flatMap((words) => problems(words));
    throw new RangeError(`${layout.name} is illegal on this SMMU: ${problem?.message ?? 'no record of it is legal'}`);
  }
  const legal = legalOf(kind);
  const all = { ...kind, fixed: NONE };
  // From some legal records nothing of the kind can be reached: then it is taken from the first one.
  const pick = <T>(of: (words: Words) => readonly T[]): fc.Arbitrary<T> =>
    legal.chain((words) => {
      const here = of(words);
      return fc.constantFrom(...(here.length > 0 ? here : of(first)));
    });
  return {
    any: fc
      .tuple(fc.constantFrom(...bases), fc.array(edit(all), EDITS))
      .map(([base, edits]) => edits.reduce<Words>((words, one) => edited(layout, words, one), base.slice())),
    legal,
    illegal: pick((words) => breaking(kind, words)).chain((same) => fc.constantFrom(...same)),
    boundary: pick((words) => boundaries(kind, words)),
  };
}

const NONE: ReadonlySet<string> = new Set();
/** A record with V=0 says nothing, and is legal. */
const VALID: ReadonlySet<string> = new Set(['V']);

/** An STE of each Config, with the stage 2 of a 4 KB granule and 40 bits. */
function steBases(): Words[] {
  const s1 = { S1ContextPtr: 0x1000n >> 6n } as const;
  const s2 = { S2VMID: 1, S2T0SZ: 24, S2SL0: 1, S2TG: '4KB', S2PS: 'BITS_40', S2AA64: 'AARCH64', S2R: 1 } as const;
  return [
    STE.encode({ V: 1, Config: 'BYPASS' }),
    STE.encode({ V: 1, Config: 'ABORT' }),
    STE.encode({ V: 1, Config: 'S1_TRANS', ...s1 }),
    STE.encode({ V: 1, Config: 'S2_TRANS', ...s2 }),
    STE.encode({ V: 1, Config: 'NESTED', ...s1, ...s2 }),
  ];
}

/** STEs of an SMMU; legal and illegal ones have V=1. */
export const steArbitraries = (caps: Caps): RecordArbitraries =>
  arbitrariesOf({
    layout: STE as unknown as Layout,
    bases: steBases(),
    problems: (words) => steProblems(words, caps),
    fixed: VALID,
    pinned: VALID,
  });

/** CDs of an SMMU, as a stream of the EL1 world finds them; legal and illegal ones have V=1. */
export const cdArbitraries = (caps: Caps): RecordArbitraries =>
  arbitrariesOf({
    layout: CD as unknown as Layout,
    bases: [
      CD.encode({
        V: 1,
        AA64: 'AARCH64',
        A: 'ABORT',
        R: 1,
        T0SZ: 25,
        TG0: caps.GRAN4K ? '4KB' : '64KB',
        EPD1: 1,
        IPS: 'BITS_32',
      }),
    ],
    problems: (words) => cdProblems(words, caps),
    fixed: VALID,
    pinned: VALID,
  });

/** Commands of a name. @throws RangeError where the SMMU lacks what the command needs */
export function commandArbitraries(name: keyof typeof COMMANDS, caps: Caps): RecordArbitraries {
  const layout = COMMANDS[name];
  return arbitrariesOf({
    layout: layout as unknown as Layout,
    bases: [layout.encode()],
    problems: (words) => commandProblems(words, caps),
    fixed: new Set(['Opcode']),
  });
}
