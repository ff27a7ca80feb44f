/**
 * The least invalidation that the architecture asks for is enough: after each change of nested tables and that
 * invalidation, an SMMU with caches answers as one without (IHI 0070 3.21.1, 4.4).
 */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { CMD_TLBI_NH_ALL, CMD_TLBI_NH_VA, CMD_TLBI_NH_VAA, CMD_TLBI_S2_IPA } from '../../spec/commands.ts';
import { NO_TLB } from '../../src/hw/tlb.ts';
import { Translator } from '../../src/hw/translate.ts';
import { answer, ipaOf, Lab, labCaps, RAM, RAM_SIZE } from './translation-lab.ts';

const SLOT = 0x20_0000n;
const SLOTS = 4;
const PAGES = 4;
const VA = 0x12_0000_0000n;
const IPA = 0x34_0000_0000n;
const DATA = RAM + 0x1000_0000n;
const VMID = 7;
/** Streams 1 and 2: ASIDs 1 and 2 over the same tables. */
const STREAMS = [1, 2] as const;

const slot = fc.nat(SLOTS - 1);
const page = fc.nat(PAGES - 1);
const change = fc.oneof(
  fc.record({
    op: fc.constant('page' as const),
    stage: fc.constantFrom(1, 2),
    slot,
    page,
    to: fc.nat(63),
    flag: fc.boolean(),
  }),
  fc.record({
    op: fc.constant('block' as const),
    stage: fc.constantFrom(1, 2),
    slot,
    page,
    to: slot,
    flag: fc.boolean(),
  }),
  fc.record({
    op: fc.constant('clear' as const),
    stage: fc.constantFrom(1, 2),
    slot,
    page,
    to: fc.constant(0),
    flag: fc.boolean(),
  }),
);
type Change = typeof change extends fc.Arbitrary<infer T> ? T : never;
const probes = fc.array(
  fc.record({ slot, page: fc.nat(511), stream: fc.constantFrom(...STREAMS), isWrite: fc.boolean() }),
  {
    minLength: 4,
    maxLength: 12,
  },
);

/** One stage: its root, what each slot holds ('', 'block', 'table'), and where the slot's level 2 entry stands. */
interface Stage {
  readonly root: bigint;
  readonly kinds: string[];
  readonly at: bigint[];
}

class Tables {
  readonly lab: Lab;
  readonly cold: Translator;
  readonly #first: Stage;
  readonly #second: Stage;

  constructor(options: ConstructorParameters<typeof Lab>[1] = {}) {
    this.lab = new Lab(labCaps(), options);
    const lab = this.lab;
    const [s1, s2] = [lab.pages(), lab.pages()];
    this.#first = { root: s1, kinds: [], at: [] };
    this.#second = { root: s2, kinds: [], at: [] };
    for (let at = RAM; at < RAM + RAM_SIZE; at += 0x4000_0000n) lab.map(2, s2, ipaOf(at), at, {}, { level: 1 });
    for (const sid of STREAMS) {
      const cd = lab.cd({ TTB0: ipaOf(s1) >> 4n, ASID: sid });
      lab.ste(sid, { Config: 'NESTED', S1ContextPtr: ipaOf(cd) >> 6n, ...lab.s2(s2, VMID) });
    }
    for (const stage of [1, 2] as const)
      for (let i = 0; i < SLOTS; i++) {
        this.#half(stage).at[i] = this.#block(stage, i, 0n, false);
        lab.memory.write64(this.#half(stage).at[i] ?? 0n, 0n);
        this.#half(stage).kinds[i] = '';
      }
    this.cold = new Translator(lab.memory, lab.caps, lab.regs, { tlb: NO_TLB });
  }

  #half(stage: number): Stage {
    return stage === 1 ? this.#first : this.#second;
  }

  #base(stage: number, i: number): bigint {
    return (stage === 1 ? VA : IPA) + BigInt(i) * SLOT;
  }

  /** Where a stage's output number `to` is: stage 1 points into the slots of stage 2. */
  #target(stage: number, to: number): bigint {
    return stage === 1 ? IPA + BigInt(to % SLOTS) * SLOT : DATA + BigInt(to) * SLOT;
  }

  #fields(stage: number, flag: boolean): Record<string, number> {
    return stage === 1 ? { nG: flag ? 1 : 0, AP: 1 } : { S2AP: flag ? 3 : 1 };
  }

  #how(stage: number) {
    return stage === 1 ? { ipaOf } : {};
  }

  #block(stage: 1 | 2, i: number, out: bigint, flag: boolean): bigint {
    return this.lab.map(stage, this.#half(stage).root, this.#base(stage, i), out, this.#fields(stage, flag), {
      ...this.#how(stage),
      level: 2,
    });
  }

  /** Break before make: the old entry goes and is invalidated, then the new one stands. */
  apply({ op, stage, slot: i, page: n, to, flag }: Change): void {
    const s = stage as 1 | 2;
    const entry = this.#half(s).at[i] ?? 0n;
    const kind = this.#half(s).kinds[i];
    const { memory } = this.lab;
    const address = this.#base(s, i) + BigInt(n) * 0x1000n;
    if (kind === 'table' && op === 'page') {
      const table = (memory.read64(entry) & 0xffff_ffff_f000n) - (s === 1 ? ipaOf(0n) : 0n);
      memory.write64(table + BigInt(n * 8), 0n);
      this.#invalidate(s, address, 3, flag);
    } else if (kind !== '') {
      memory.write64(entry, 0n);
      this.#invalidate(s, address, kind === 'table' ? 0 : 2, flag);
      this.#half(s).kinds[i] = '';
    }
    if (op === 'clear') return;
    if (op === 'block') this.#block(s, i, this.#target(s, to), flag);
    else
      this.lab.map(s, this.#half(s).root, address, this.#target(s, to) + BigInt(to) * 0x1000n, this.#fields(s, flag), {
        ...this.#how(s),
      });
    this.#half(s).kinds[i] = op === 'block' ? 'block' : 'table';
  }

  /** level 3, 2: one leaf of that level; 0: a table with everything under it. */
  #invalidate(stage: 1 | 2, at: bigint, level: number, hint: boolean): void {
    const { lab } = this;
    const whole = { VMID, address: at - (at % SLOT), TG: 1, NUM: 0, SCALE: 9, Leaf: false };
    const leaf = hint
      ? { VMID, address: at - (level === 2 ? at % SLOT : 0n), TG: 1, NUM: 0, SCALE: 0, TTL: level, Leaf: true }
      : { VMID, address: at, Leaf: true };
    const fields = level === 0 ? whole : leaf;
    if (stage === 1) {
      // Entries of both ASIDs: by VA for each, or for any ASID at once.
      if (hint) for (const ASID of STREAMS) lab.tlbi(CMD_TLBI_NH_VA.opcode, { ...fields, ASID });
      else lab.tlbi(CMD_TLBI_NH_VAA.opcode, fields);
    } else {
      lab.tlbi(CMD_TLBI_S2_IPA.opcode, fields);
      lab.tlbi(CMD_TLBI_NH_ALL.opcode, { VMID });
    }
  }

  /** Both answers to one access. */
  probe(p: { slot: number; page: number; stream: number; isWrite: boolean }): [string, string] {
    const { lab } = this;
    const warm = lab.go(p.stream, VA + BigInt(p.slot) * SLOT + BigInt(p.page % 8) * 0x1000n + 0x10n, {
      isWrite: p.isWrite,
    });
    this.cold.translate(lab.t);
    return [warm, answer(lab.t)];
  }
}

for (const [name, entries] of [
  ['default shapes', 0],
  ['eight entries', 8],
] as const)
  test(`after the least invalidation, cached and uncached answers are equal: ${name}`, () => {
    const shape = { entries, ways: 4, replacement: 'lru' } as const;
    const options = entries === 0 ? {} : { tlb: { va: shape, ipa: shape, s1Tables: shape, s2Tables: shape } };
    fc.assert(
      fc.property(fc.array(fc.tuple(change, probes), { minLength: 4, maxLength: 24 }), (steps) => {
        const tables = new Tables(options);
        for (let i = 0; i < SLOTS; i++) {
          tables.apply({ op: 'block', stage: 2, slot: i, page: 0, to: i, flag: true });
          tables.apply({ op: 'block', stage: 1, slot: i, page: 0, to: i, flag: true });
        }
        for (const [one, asked] of steps) {
          tables.apply(one);
          for (const p of asked) {
            const [warm, cold] = tables.probe(p);
            expect(warm).toBe(cold);
          }
        }
      }),
      { numRuns: 60 },
    );
  });

test('without the invalidation they differ: the comparison can fail', () => {
  const tables = new Tables();
  tables.apply({ op: 'block', stage: 2, slot: 0, page: 0, to: 1, flag: true });
  tables.apply({ op: 'block', stage: 1, slot: 0, page: 0, to: 0, flag: true });
  const p = { slot: 0, page: 3, stream: 1, isWrite: false };
  expect(tables.probe(p)[0]).toBe(tables.probe(p)[1]);
  tables.lab.smmu.tlb.invalidate = () => {};
  tables.apply({ op: 'block', stage: 2, slot: 0, page: 0, to: 2, flag: true });
  const [warm, cold] = tables.probe(p);
  expect(warm).not.toBe(cold);
});
