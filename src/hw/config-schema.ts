/** Configurations from outside (files, command lines): validated here, and only here, by zod. */
import { z } from 'zod';
import type { Register } from '../../spec/layout.ts';
import { configFromIds, ID_REGISTERS, type IdRegisters, type SmmuConfig, type SmmuOptions } from './config.ts';
import { ConfigError, checkedIds } from './config-check.ts';
import { PRESETS } from './presets.ts';

/** A field: a number that fits it, or the name of one of its values. */
function fieldSchema(register: Register, name: string): z.ZodType<number | string> {
  const number = z
    .number()
    .int()
    .min(0)
    .max(2 ** register.width(name) - 1);
  const names = Object.keys(register.field(name).values ?? {});
  return names.length === 0 ? number : z.union([number, z.enum(names)]);
}

/** A register as its fields by name. */
function registerSchema(table: Register): z.ZodType<Record<string, number | string>> {
  const fields = table.names.filter((name) => table.field(name).reserved !== 'RES0');
  const shape = Object.fromEntries(fields.map((name) => [name, fieldSchema(table, name).optional()]));
  return z.strictObject(shape) as unknown as z.ZodType<Record<string, number | string>>;
}

const REGISTER_TABLES = Object.values(ID_REGISTERS) as readonly Register[];
const word = z.number().int().min(0).max(0xffffffff);
const cacheShape = z.strictObject({
  entries: z
    .number()
    .int()
    .min(0)
    .max(1 << 20),
  ways: z.number().int().min(1).max(1024),
  replacement: z.enum(['round-robin', 'lru']),
});

const entries = z
  .number()
  .int()
  .min(0)
  .max(1 << 20);

/** {@link SmmuOptions}, all optional. */
const options = z.strictObject({
  guardedWrites: z.enum(['ignored', 'taken']).optional(),
  handshakeRewrite: z.enum(['first', 'cease-if-reverted']).optional(),
  wideOverPair: z.enum(['both', 'razwi']).optional(),
  page0QueueAlias: z.enum(['alias', 'razwi']).optional(),
  page1Undefined: z.enum(['res0', 'alias']).optional(),
  unknownReset: word.optional(),
  reset: z
    .record(z.string(), z.union([word.transform(BigInt), z.bigint().min(0n).max(0xffffffffffffffffn)]))
    .optional(),
  reservedCommandBits: z.enum(['ignored', 'ill']).optional(),
  unsupportedCommands: z.enum(['ill', 'ignored']).optional(),
  atcInvOversize: z.enum(['ill', 'all']).optional(),
  ssvWithoutSubstreams: z.enum(['as-ssv0', 'no-effect']).optional(),
  prefetch: z.enum(['done', 'ignored']).optional(),
  queueWriteAbort: z.enum(['synchronous', 'asynchronous', 'unreported']).optional(),
  eventMerging: z.enum(['never', 'unread', 'drawn']).optional(),
  wiredInterrupts: z.boolean().optional(),
  stags: z.number().int().min(1).max(0x10000).optional(),
  erratumInvalidationMayMissEntryInUse: z.boolean().optional(),
  tlb: z
    .strictObject({
      va: cacheShape,
      ipa: cacheShape,
      s1Tables: cacheShape,
      s2Tables: cacheShape,
      asidDropsGlobals: z.boolean().optional(),
    })
    .optional(),
  choices: z
    .strictObject({
      tlbConflict: z.enum(['use-one', 'fault']).optional(),
      contiguous: z.boolean().optional(),
      translatedBeyondOas: z.enum(['abort', 'truncate']).optional(),
      streamTableBeyondOas: z.enum(['fault', 'truncate']).optional(),
      s1ContextPtrBeyondIas: z.enum(['ill', 'stage2']).optional(),
      s1CdMaxWithoutSubstreams: z.enum(['ignored', 'ill']).optional(),
      stage2InputBeyondIas: z.enum(['address-size', 'stage2']).optional(),
      alloccfgWithoutMtcfg: z.boolean().optional(),
      httuUncached: z.enum(['atomic', 'abort']).optional(),
    })
    .optional(),
  configCache: z.strictObject({ streams: entries, cds: entries, l1stds: entries }).optional(),
});

const schema = z.strictObject({
  /** Where fields and options that are not given come from. */
  preset: z.enum(Object.keys(PRESETS) as (keyof typeof PRESETS)[]).optional(),
  /** Whole register values; fields given beside them change these. */
  registers: z
    .strictObject(Object.fromEntries(Object.keys(ID_REGISTERS).map((name) => [name, word.optional()])))
    .optional(),
  ...Object.fromEntries(REGISTER_TABLES.map((table) => [table.name, registerSchema(table).optional()])),
  options: options.optional(),
});

/**
 * A configuration from data of unknown shape: `{ preset?, registers?: { IDR0: number ... }, IDR0?: { field: value },
 * ..., options? }`.
 * @throws ConfigError naming every path that is wrong, every rule that is broken, and everything not implemented
 */
export function parseSmmuConfig(input: unknown): SmmuConfig {
  const parsed = schema.safeParse(input);
  if (!parsed.success)
    throw new ConfigError(
      parsed.error.issues.map(({ path, message }) => `${path.join('.') || 'configuration'}: ${message}`),
    );
  const given = parsed.data as Record<string, Record<string, number | string> | undefined> & {
    preset?: keyof typeof PRESETS;
    registers?: Partial<IdRegisters>;
    options?: Partial<SmmuOptions>;
  };
  const base: SmmuConfig = given.preset === undefined ? configFromIds({}) : PRESETS[given.preset];
  const values = configFromIds(given.registers ?? {});
  const merged: Record<string, unknown> = { options: { ...base.options, ...given.options } };
  for (const name of Object.keys(ID_REGISTERS) as (keyof IdRegisters)[]) {
    const whole = given.registers?.[name] === undefined ? base[name] : values[name];
    merged[name] = { ...whole, ...given[name] };
  }
  const config = merged as unknown as SmmuConfig;
  checkedIds(config);
  return config;
}
