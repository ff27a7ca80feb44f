/** What the options of `smmulab check` ask for. */
import { accessSync, constants } from 'node:fs';
import type { CaseOptions } from '../../testing/arbitraries/case.ts';
import { LAB_PRESETS, type LabPreset, POLICIES } from '../../testing/lab.ts';
import { PROPERTIES } from '../../testing/properties/index.ts';
import type { Property } from '../../testing/property.ts';
import { CliError } from '../error.ts';
import { reasonOf } from '../io.ts';
import { COMMON, choice, number, type Options, text, type Values } from '../options.ts';
import { MAX_SHARDS } from './merge.ts';
import type { Shard, Task } from './task.ts';

/** All options. */
export const OPTIONS = {
  ...COMMON,
  policy: { type: 'string' },
  preset: { type: 'string' },
  'vmid-bits': { type: 'string' },
  schedule: { type: 'string' },
  runs: { type: 'string' },
  seed: { type: 'string' },
  'max-ops': { type: 'string' },
  shard: { type: 'string' },
  workers: { type: 'string' },
  driver: { type: 'string' },
  bug: { type: 'string' },
  replay: { type: 'string' },
  merge: { type: 'boolean' },
  out: { type: 'string' },
} as const satisfies Options;

/** Options that a replay takes from its file. */
const DRAWING = ['policy', 'preset', 'vmid-bits', 'schedule', 'runs', 'seed', 'max-ops', 'shard', 'workers'] as const;

/** Runs of each property, unless told. */
export const DEFAULT_RUNS = 200;
/** Operations of a case at most. */
const MAX_OPS = 10_000n;
const MAX_RUNS = 100_000_000n;
/** Worker threads at most. */
const MAX_WORKERS = 256n;

/** Refuses options that go without saying. @throws CliError */
export function refuse(values: Values, names: readonly string[], with_: string, why: string): void {
  for (const name of names) if (values[name] !== undefined) throw new CliError(`--${name} and --${with_}: ${why}`);
}

/** @throws CliError for options that a replay takes from its file */
export function checkReplay(values: Values): void {
  refuse(values, DRAWING, 'replay', 'the file says what is run');
  refuse(values, ['out'], 'replay', 'the case is saved already');
}

/** @throws CliError for options that a merge takes from the reports */
export const checkMerge = (values: Values): void =>
  refuse(values, [...DRAWING, 'driver', 'bug', 'replay'], 'merge', 'the reports say what was run');

/** The properties of the given names. foreign: only those that say something of any driver. @throws CliError */
export function propertiesOf(names: readonly string[], foreign: boolean): readonly Property[] {
  const known = PROPERTIES.map(({ name }) => name).join(', ');
  const wanted = [...new Set(names)].map((name) => {
    const found = PROPERTIES.find((one) => one.name === name);
    if (found === undefined) throw new CliError(`'${name}' is not a property; one of ${known}`);
    if (foreign && !found.foreign)
      throw new CliError(`${name} asks about the shipped driver's policy; it cannot be asked of --driver`);
    return found;
  });
  return wanted.length > 0 ? wanted : PROPERTIES.filter((one) => one.foreign || !foreign);
}

const SHARD = /^(\d{1,6})\/(\d{1,6})$/;

function shardOf(given: string | undefined): Shard | null {
  if (given === undefined) return null;
  const [, index = '', of = ''] = SHARD.exec(given) ?? [];
  const shard = { index: Number(index), of: Number(of) };
  if (of === '' || shard.of < 1 || shard.of > MAX_SHARDS || shard.index >= shard.of)
    throw new CliError(`--shard: '${given}' is not I/N with I from 0 to N-1`);
  return shard;
}

function fixedOf(values: Values): CaseOptions {
  const bits = choice(values, 'vmid-bits', ['8', '16']);
  const policy = choice(values, 'policy', POLICIES);
  const preset = choice(values, 'preset', Object.keys(LAB_PRESETS) as LabPreset[]);
  const schedule = choice(values, 'schedule', ['eager', 'seeded']);
  const maxOps = number(values, 'max-ops', 1n, MAX_OPS);
  if (preset === 'smallVmid' && bits === '16') throw new CliError('--preset smallVmid has 8-bit VMIDs');
  return {
    ...(policy === undefined ? {} : { policy }),
    ...(preset === undefined ? {} : { preset }),
    ...(bits === undefined ? {} : { vmidBits: bits === '8' ? 8 : 16 }),
    ...(schedule === undefined ? {} : { schedule }),
    ...(maxOps === undefined ? {} : { maxOps: Number(maxOps) }),
  };
}

/** What is to be tried. runs: unless told. @throws CliError */
export function taskOf(values: Values, names: readonly string[], runs: number): Task {
  const driver = text(values, 'driver');
  const bug = text(values, 'bug');
  const fixed = fixedOf(values);
  const foreign = driver !== undefined;
  return {
    seed: Number(number(values, 'seed', 0n, 0xffffffffn) ?? 1n),
    runs: Number(number(values, 'runs', 1n, MAX_RUNS) ?? BigInt(runs)),
    shard: shardOf(text(values, 'shard')),
    fixed: foreign && fixed.policy === undefined ? { ...fixed, policy: 'foreign' } : fixed,
    properties: propertiesOf(names, foreign).map(({ name }) => name),
    ...(driver === undefined ? {} : { driver }),
    ...(bug === undefined ? {} : { bug }),
  };
}

/** Where failing cases are saved; '' is the current directory. @throws CliError, before any run, if nothing can be there */
export function outOf(values: Values): string {
  const out = text(values, 'out') ?? '';
  try {
    if (out !== '') accessSync(`${out}/.`, constants.W_OK);
  } catch (error) {
    throw new CliError(`--out: ${out}: ${outReason(error)}`);
  }
  return out;
}

const OUT_REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such directory',
  ENOTDIR: 'it is not a directory',
  EACCES: 'it may not be written',
};

const outReason = (error: unknown): string =>
  OUT_REASONS[error instanceof Error && 'code' in error ? String(error.code) : ''] ?? reasonOf(error);

/** Worker threads that are wanted. @throws CliError */
export const workersOf = (values: Values): number => Number(number(values, 'workers', 1n, MAX_WORKERS) ?? 1n);
