/**
 * When a command on the Non-secure queue is CERROR_ILL (IHI 0070 4.1.3 and each command's own text).
 *
 * Left out, because the architecture lets hardware choose and ignoring is allowed: set bits of reserved fields (see
 * {@link reservedFieldsSet}), CMD_ATC_INV with Size above 52, CMD_PREFETCH_ADDR with Stride on v3.0, parameters out of
 * range (4.1.7).
 */
import { type Caps, featureMet } from '../caps.ts';
import { CMD_SYNC, CMD_TLBI_S2_IPA, type CommandMatch, commandOf, IMPDEF_OPCODES, opcodeOf } from '../commands.ts';
import type { Words } from '../layout.ts';
import { firstProblemOf, type Problem, problemsOf, type Rule, shows } from './rule.ts';

const hex = (value: number): string => `0x${value.toString(16).padStart(2, '0')}`;

/** Low bits that address fields leave out. */
const PAGE_LOW = CMD_TLBI_S2_IPA.fields.Address.address;
const MSI_ADDRESS_LOW = CMD_SYNC.fields.MSIAddress.address;

const isImpdef = (opcode: number): boolean => opcode >= IMPDEF_OPCODES[0] && opcode <= IMPDEF_OPCODES[1];

const has = (command: CommandMatch, field: string): boolean => Object.hasOwn(command.layout.fields, field);

/** A rule that looks at commands with all of the given fields. */
function fieldRule(
  id: string,
  section: string,
  fields: readonly string[],
  broken: (words: Words, command: CommandMatch, caps: Caps | undefined) => string | undefined,
): Rule {
  return {
    id,
    section,
    fields,
    broken(words, caps) {
      const command = commandOf(words);
      if (command === undefined) return undefined;
      for (const field of fields) if (!has(command, field)) return undefined;
      return broken(words, command, caps);
    },
  };
}

/** SCALE has 5 bits without IDR5.DS; bit 25 is then RES0 (4.4.1.1). `value` is the field's 6 bits. */
export const effectiveScale = (value: number, caps: Caps | undefined): number =>
  caps === undefined || caps.DS ? value : value & 0x1f;

/** TTL of a ranged invalidation. LEVEL_1 of the 16 KB granule needs IDR5.DS and else counts as ANY (4.4.1.1). */
export const effectiveTtl = (ttl: number, tg: number, caps: Caps | undefined): number =>
  ttl === 1 && tg === 2 && caps !== undefined && !caps.DS ? 0 : ttl;

const opcodeRule: Rule = {
  id: 'CMD-OPCODE',
  section: '4.1.3',
  fields: ['Opcode'],
  broken(words, caps) {
    const opcode = opcodeOf(words);
    const command = commandOf(words);
    if (command !== undefined)
      return command.layout.nonSecure
        ? undefined
        : `Opcode (bits 7:0) = ${hex(opcode)} is ${command.name}, a command of the Secure queue only`;
    // Some SMMU may define these opcodes; the ones described by capabilities define none.
    if (isImpdef(opcode))
      return caps === undefined
        ? undefined
        : `Opcode (bits 7:0) = ${hex(opcode)} is implementation defined, and this SMMU defines none`;
    return `Opcode (bits 7:0) = ${hex(opcode)} is reserved`;
  },
};

const featureRule: Rule = {
  id: 'CMD-FEATURE',
  section: '4.1.3',
  fields: ['Opcode'],
  broken(words, caps) {
    if (caps === undefined) return undefined;
    const command = commandOf(words);
    if (command === undefined || !command.layout.nonSecure) return undefined;
    const { when, section } = command.layout.info;
    if (featureMet(when, caps)) return undefined;
    const needs = typeof when === 'string' ? [when] : (when ?? []);
    const missing = needs.filter((one) => !featureMet(one, caps)).join(', ');
    return `${command.name} needs ${missing} [${section}]`;
  },
};

const rangeRule = fieldRule('CMD-RANGE', '4.4.1.1', ['NUM', 'SCALE', 'TTL', 'TG'], (words, { layout }, caps) => {
  const tg = layout.num(words, 'TG');
  // Without RIL the range fields are RES0, which an SMMU may ignore.
  if (tg === 0 || caps?.RIL !== true) return undefined;
  const ttl = layout.num(words, 'TTL');
  if (layout.num(words, 'NUM') !== 0 || effectiveScale(layout.num(words, 'SCALE'), caps) !== 0) return undefined;
  if (effectiveTtl(ttl, tg, caps) !== 0) return undefined;
  const counts = ttl === 0 ? '' : ', which counts as 0 without IDR5.DS';
  return `${shows(layout, words, 'TG')} with NUM = 0, SCALE = 0 and TTL = ${ttl}${counts}; one of the three must be set`;
});

/** When a command is CERROR_ILL on the Non-secure queue. */
export const COMMAND_RULES: readonly Rule[] = [
  opcodeRule,
  featureRule,
  fieldRule('CMD-SSEC', '4.1.6', ['SSec'], (words, { name, layout }) =>
    layout.nonSecure && layout.num(words, 'SSec') !== 0
      ? `${shows(layout, words, 'SSec')} in ${name}, legal 0 on the Non-secure queue`
      : undefined,
  ),
  rangeRule,
  fieldRule('CMD-PRI-RESP', '4.5.2', ['Resp'], (words, { layout }) =>
    layout.num(words, 'Resp') === 3 ? `${shows(layout, words, 'Resp')}, legal 0..2` : undefined,
  ),
  fieldRule('CMD-SYNC-CS', '4.7.3', ['CS'], (words, { layout }) =>
    layout.num(words, 'CS') === 3 ? `${shows(layout, words, 'CS')}, legal 0..2` : undefined,
  ),
];

/** Every reason why a command is CERROR_ILL. `caps` as in {@link Rule}; without it, what every SMMU refuses. */
export const commandProblems = (words: Words, caps?: Caps): Problem[] => problemsOf(COMMAND_RULES, words, caps);

/** By layout, the rules that look at fields it has: the others never break. */
const rulesOf = new Map<CommandMatch['layout'], readonly Rule[]>();

function rulesFor(command: CommandMatch): readonly Rule[] {
  let rules = rulesOf.get(command.layout);
  if (rules === undefined) {
    rules = COMMAND_RULES.filter(({ fields }) => fields.every((field) => has(command, field)));
    rulesOf.set(command.layout, rules);
  }
  return rules;
}

/** The first reason why a command is CERROR_ILL; allocates nothing for a legal one. */
export function firstCommandProblem(words: Words, caps?: Caps): Problem | undefined {
  const command = commandOf(words);
  return firstProblemOf(command === undefined ? COMMAND_RULES : rulesFor(command), words, caps);
}

/** Fields that are RES0 because of other fields of the same command (4.4.1.1). */
function unusedFields(words: Words, command: CommandMatch): readonly string[] {
  if (!has(command, 'TG')) return [];
  if (command.layout.num(words, 'TG') === 0) return ['NUM', 'SCALE', 'TTL', 'TTL128'];
  return command.layout.num(words, 'TTL') === 0 ? ['TTL128'] : [];
}

/** Fields whose upper bits are RES0 on this SMMU, with the number of bits that count. */
function fieldWidths(command: CommandMatch, caps: Caps): Readonly<Record<string, number>> {
  const physical = caps.minor === 0 ? 48 : caps.minor < 4 ? 52 : 56;
  return {
    SCALE: caps.DS ? 6 : 5,
    VMID: caps.vmidBits,
    ASID: caps.asidBits,
    MSIAddress: physical - MSI_ADDRESS_LOW,
    ...(command.layout.name === 'CMD_TLBI_S2_IPA' || command.layout.name === 'CMD_DPTI_PA'
      ? { Address: physical - PAGE_LOW }
      : {}),
  };
}

/**
 * Fields of a command that have a bit set where it is reserved, or RES0 for want of a feature or because of another
 * field. Hardware either refuses such a command with CERROR_ILL or ignores these bits (4.1.5). Without `caps`, only what
 * is reserved on every SMMU.
 */
export function reservedFieldsSet(words: Words, caps?: Caps): string[] {
  const command = commandOf(words);
  if (command === undefined || !command.layout.nonSecure) return [];
  const { layout } = command;
  const unused = unusedFields(words, command);
  const widths = caps === undefined ? {} : fieldWidths(command, caps);
  return layout.names.filter((name) => {
    const value = layout.get(words, name);
    if (value === 0n) return false;
    const { reserved, when } = layout.field(name);
    if (reserved !== undefined || unused.includes(name)) return true;
    if (caps !== undefined && !featureMet(when, caps)) return true;
    return value >> BigInt(widths[name] ?? layout.width(name)) !== 0n;
  });
}
