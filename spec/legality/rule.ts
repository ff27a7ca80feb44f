/** Rules about records: what a legality rule is, and how lists of them are applied. */
import type { Caps } from '../caps.ts';
import type { Layout, Words } from '../layout.ts';

/**
 * One legality rule of a record. `broken` answers undefined for a legal record, without allocating; otherwise a message
 * that names field, bits, value, what was legal, and what in the configuration made it so.
 *
 * caps: the SMMU; undefined asks what no SMMUv3.x can accept. There, a set bit that is RES0 without its feature stands
 * for an SMMU that has the feature; a field that is merely IGNORED without it does not.
 * context: what lies outside the record; undefined asks what holds in every context.
 */
export interface Rule<Context = undefined> {
  /** Stable id, as `STE-S25`. */
  readonly id: string;
  /** Section of IHI 0070. */
  readonly section: string;
  /** Fields the rule looks at, the offending ones first. */
  readonly fields: readonly string[];
  broken(words: Words, caps: Caps | undefined, context?: Context): string | undefined;
}

/** A broken rule of one record. */
export interface Problem {
  readonly rule: string;
  readonly section: string;
  readonly fields: readonly string[];
  readonly message: string;
}

/** Every broken rule of a list, in its order. */
export function problemsOf<Context>(
  rules: readonly Rule<Context>[],
  words: Words,
  caps: Caps | undefined,
  context?: Context,
): Problem[] {
  const out: Problem[] = [];
  for (const { id, section, fields, broken } of rules) {
    const message = broken(words, caps, context);
    if (message !== undefined) out.push({ rule: id, section, fields, message });
  }
  return out;
}

/** The first broken rule of a list. Allocates nothing for a legal record. */
export function firstProblemOf<Context>(
  rules: readonly Rule<Context>[],
  words: Words,
  caps: Caps | undefined,
  context?: Context,
): Problem | undefined {
  for (let i = 0; i < rules.length; i++) {
    const rule = rules[i];
    const message = rule?.broken(words, caps, context);
    if (rule !== undefined && message !== undefined)
      return { rule: rule.id, section: rule.section, fields: rule.fields, message };
  }
  return undefined;
}

/** `S2T0SZ (bits 165:160) = 12`; a pointer's value is its address in hexadecimal. */
export function shows(table: Layout, words: Words, name: string): string {
  const value = table.field(name).address === undefined ? table.get(words, name) : table.address(words, name);
  const text = table.field(name).address === undefined ? `${value}` : `0x${value.toString(16)}`;
  return `${name} (bits ${table.bits(name)}) = ${text}`;
}

/** A test whether an address field reaches 2^bits; bits: 32 to 64. Made once, reads one 32-bit half. */
export function addressBeyond(table: Layout, name: string): (words: Words, bits: number) => boolean {
  const low = table.field(name).address ?? 0;
  const top = table.parts(name).find(({ at }) => at + low === 32);
  if (top === undefined) throw new Error(`${table.name}.${name} does not split at address bit 32`);
  const { word, shift, mask } = top;
  return (words, bits) => bits < 64 && ((((words[word] ?? 0) >>> shift) & mask) >>> 0) >>> (bits - 32) !== 0;
}
