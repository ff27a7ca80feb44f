/** The shape of scenario files: validated here, and only here, by zod. docs/scenarios.md explains it. */
import { z } from 'zod';
import { PRG_RESPONSE } from '../../spec/pri.ts';
import { STE } from '../../spec/ste.ts';
import { QUIRK_NAMES, type VmidPolicyName } from '../driver/arm-smmu-v3/index.ts';
import type { VmidHolder } from '../hw/vmid.ts';
import { LAB_LIMITS, LAB_PRESETS, type LabConfig, type LabPreset, POLICIES } from '../testing/lab.ts';
import { STAYS_BLOCKED } from '../testing/model.ts';
import type { Operation } from '../testing/operation.ts';
import { STILL_USED } from '../testing/operations/handover.ts';
import { OPERATIONS } from './shapes/index.ts';
import { name, small } from './shapes/values.ts';

/** A step that does nothing by itself: it looks. */
export type Check =
  /** Fields of the device's STE in memory: numbers, or names of their values. */
  | { readonly op: 'ste'; readonly dev: string; readonly fields: Readonly<Record<string, string | number>> }
  /** Devices whose STEs carry one VMID, or each another; how many VMIDs are owned, by SMMU. */
  | {
      readonly op: 'vmids';
      readonly same?: readonly string[];
      readonly different?: readonly string[];
      readonly owned?: Readonly<Record<string, number>>;
    }
  /** What in hardware names a VMID: exactly these kinds; default none. */
  | { readonly op: 'holders'; readonly smmu: string; readonly vmid: number; readonly kinds?: readonly HolderKind[] }
  /** Events that an SMMU has recorded so far, once hardware has nothing left to do. */
  | { readonly op: 'events'; readonly smmu: string; readonly count: number };

/** Kinds of {@link VmidHolder}. */
type HolderKind = VmidHolder['kind'];

/** Version of the format. */
export const SCENARIO_VERSION = 1;

/** Most steps of a scenario. */
export const MAX_STEPS = 100_000;

const holderKind = z.enum(['ste', 'cached-ste', 'tlb', 'walk-cache', 'vintf', 'command']);

/** What a step may end in, and what it may say that it saw. */
const OUTCOMES = [
  'ok|skipped|abort|stall',
  '((old-)?vm|mm)\\d+:\\d+',
  'E[A-Z0-9]{2,15}(:\\d+)?',
  'done|posted|timeout|enabled|disabled|error(:\\w{1,40})?|0x[0-9a-f]{1,8}',
  'faults \\d+|no events|(([A-Z]_[A-Z_]+@\\d+|lost)( |$))+|VCMDQ_ERROR( 0x[0-9a-f]{1,8})*',
  'dirty (none|\\d+( \\d+)*)',
  `no answer|${Object.keys(PRG_RESPONSE).join('|')}`,
  'PASID \\d+|nothing adopted|adopted smmu\\d+(, smmu\\d+)*',
  `${STAYS_BLOCKED}|${STILL_USED}`,
];
const OUTCOME = new RegExp(`^(${OUTCOMES.join('|')})$`);

/** Reports fields that an STE does not have, and names that are no values of theirs. */
function steFields(fields: Readonly<Record<string, string | number>>, context: z.RefinementCtx): void {
  const known = new Map<string, object>(Object.entries(STE.fields));
  for (const [field, value] of Object.entries(fields)) {
    const complain = (message: string): void => context.addIssue({ code: 'custom', path: [field], message });
    const layout = known.get(field);
    if (layout === undefined) complain(`an STE has no field ${field}`);
    else if (typeof value === 'string') {
      const names = 'values' in layout ? Object.keys(layout.values ?? {}) : [];
      const legal = names.length === 0 ? 'a number' : `a number or one of ${names.join(', ')}`;
      if (!names.includes(value)) complain(`expected ${legal}`);
    }
  }
}

/** Steps that only look. */
const LOOKS = {
  ste: {
    dev: name,
    fields: z.record(z.string(), z.union([z.string(), z.number().int().min(0)])).superRefine(steFields),
  },
  vmids: {
    same: z.array(name).min(2).optional(),
    different: z.array(name).min(2).optional(),
    owned: z.record(name, small(0, 0xffff)).optional(),
  },
  holders: { smmu: name, vmid: small(0, 0xffff), kinds: z.array(holderKind).optional() },
  events: { smmu: name, count: small(0, 1_000_000) },
} as const satisfies Record<Check['op'], z.ZodRawShape>;

const policy = z.enum(POLICIES as readonly [VmidPolicyName, ...VmidPolicyName[]]);
/** 'ok', 'skipped', an errno; for a DMA 'ok', 'abort', 'stall', or the page that is read: `vm0:9`. */
const outcome = z
  .string()
  .regex(
    OUTCOME,
    "expected an outcome: ok, skipped, abort, stall, a page as vm0:9 or mm0:9, an errno's name, or what the step sees",
  );

type Members = [z.ZodObject<{ op: z.ZodLiteral<string> }>, ...z.ZodObject<{ op: z.ZodLiteral<string> }>[]];

/** A union of steps told apart by `op`; `more`: what each may have besides. */
const unionOf = (shapes: Readonly<Record<string, z.ZodRawShape>>, more: z.ZodRawShape) =>
  z.discriminatedUnion(
    'op',
    Object.entries(shapes).map(([kind, shape]) =>
      z.strictObject({ op: z.literal(kind), ...shape, ...more }),
    ) as unknown as Members,
    {
      error: ({ code }) => (code === 'invalid_union' ? `expected one of ${Object.keys(shapes).join(', ')}` : undefined),
    },
  );

/** What every step may have beside its operation. */
const STEP = {
  /** What hardware's draws depend on, in a seeded schedule. Default: the number of the step. */
  id: small(0, Number.MAX_SAFE_INTEGER).optional(),
  /** How it must end; by policy, where policies differ. */
  expect: z.union([outcome, z.partialRecord(policy, outcome)]).optional(),
  /** Anything worth saying; printed with the step. */
  note: z.string().max(400).optional(),
  /** What is done instead in the second run of a property that compares two; null: nothing. */
  twin: unionOf(OPERATIONS, {}).nullable().optional(),
} as const;

const operation = unionOf({ ...OPERATIONS, ...LOOKS }, STEP);

/** What a machine may be made of: {@link LabConfig}, each member on its own. */
export const machineShape = z.strictObject({
  preset: z.enum(Object.keys(LAB_PRESETS) as [LabPreset, ...LabPreset[]]).optional(),
  smmus: small(1, LAB_LIMITS.smmus).optional(),
  devices: small(1, LAB_LIMITS.devices).optional(),
  vms: small(1, LAB_LIMITS.vms).optional(),
  processes: small(0, LAB_LIMITS.processes).optional(),
  streamTable: z.enum(['linear', 'two-level']).optional(),
  defaultDomain: z.enum(['dma', 'identity']).optional(),
  vmidBits: z.union([z.literal(8), z.literal(16)]).optional(),
  policy: policy.optional(),
  schedule: z.strictObject({ mode: z.enum(['eager', 'seeded']), seed: small(0, 0x7fffffff).optional() }).optional(),
  sidPairsLog2: small(0, LAB_LIMITS.sidPairsLog2).optional(),
  eventsLog2: small(1, LAB_LIMITS.eventsLog2).optional(),
  ats: z.boolean().optional(),
  pri: z.boolean().optional(),
  stalls: z.boolean().optional(),
  streams: z.union([z.literal(1), z.literal(2)]).optional(),
  pasidBits: small(0, 20).optional(),
  quirks: z.union([z.literal('linux-7.2'), z.array(z.enum(QUIRK_NAMES))]).optional(),
  nestedWithoutViommu: z.boolean().optional(),
  entryNum: z.enum(['kernel', 'uapi']).optional(),
  contexts: z.enum(['shared', 'per-vm']).optional(),
  iommuHold: z.enum(['raw', 'users', 'wait-cnt', 'driver-count', 'device-ref', 'revoke']).optional(),
});

const schema = z.strictObject({
  smmulab: z.literal(SCENARIO_VERSION),
  title: z.string().max(400).optional(),
  machine: machineShape.optional(),
  properties: z.array(z.string()).max(100).optional(),
  finding: z.strictObject({ rule: z.string(), message: z.string() }).optional(),
  steps: z.array(operation).max(MAX_STEPS),
});

/** A step of a scenario: an operation, its id, and what is expected of it. */
export interface ScenarioStep {
  readonly id?: number | undefined;
  /** How it must end; by policy, where policies differ. */
  readonly expect?: string | Readonly<Partial<Record<VmidPolicyName, string>>> | undefined;
  readonly note?: string | undefined;
  /** What is done instead in the second run of a property that compares two; null: nothing. */
  readonly twin?: Operation | null | undefined;
  readonly operation: Operation | Check;
}

/** A scenario as read. */
export interface Scenario {
  readonly title?: string | undefined;
  readonly machine: LabConfig;
  /** Properties that must hold after each step; undefined: all. */
  readonly properties: readonly string[] | undefined;
  /** What was found when it was saved. */
  readonly finding?: { readonly rule: string; readonly message: string } | undefined;
  readonly steps: readonly ScenarioStep[];
}

/** A file that is no scenario. The message names the place and what was expected there. */
export class ScenarioError extends Error {
  override readonly name = 'ScenarioError';
}

/** Drops keys that zod leaves undefined. */
const defined = <T extends object>(value: T): T =>
  Object.fromEntries(Object.entries(value).filter(([, one]) => one !== undefined)) as T;

/** Most characters of a value in a message. */
const SHOWN = 40;

/** What stands at a place of the data, for a message: scalars as they are. */
function valueAt(data: unknown, path: readonly PropertyKey[]): string {
  let at = data;
  for (const part of path) at = typeof at === 'object' && at !== null ? Reflect.get(at, part) : undefined;
  if (at === undefined || at === null) return 'nothing';
  if (Array.isArray(at)) return 'a list';
  if (typeof at === 'object' && at !== null) return 'a mapping';
  if (typeof at !== 'string') return String(at);
  // What a binary file has in it is no business of a terminal's.
  const text = at.slice(0, SHOWN).replace(/[^ -~]/g, '?');
  return at.length > SHOWN ? `'${text}...'` : `'${text}'`;
}

/** The first thing that is wrong: its place, what was expected there, what is there. */
function complaint(data: unknown, issue: z.core.$ZodIssue | undefined): string {
  const path = issue?.path ?? [];
  if (path.length === 0 && issue?.code === 'invalid_type')
    return `the file: expected a mapping with "smmulab: ${SCENARIO_VERSION}" and "steps", got ${valueAt(data, [])}`;
  const where = path.map((part) => (typeof part === 'number' ? `[${part}]` : `.${String(part)}`)).join('');
  const said = (issue?.message ?? 'is not a scenario').replace(/^Invalid \w+: /, '').replace(/, received .*$/, '');
  const got = issue?.code === 'unrecognized_keys' ? '' : `, got ${valueAt(data, path)}`;
  return `${where.replace(/^\./, '') || 'the file'}: ${said}${got}`;
}

/** Data of unknown shape as a scenario. @throws ScenarioError naming the first thing that is wrong */
export function scenarioOf(data: unknown): Scenario {
  const parsed = schema.safeParse(data);
  if (!parsed.success) throw new ScenarioError(complaint(data, parsed.error.issues[0]));
  const { title, machine: config = {}, properties, finding, steps } = parsed.data;
  return {
    title,
    machine: defined(config) as LabConfig,
    properties,
    finding,
    steps: steps.map((step) => {
      const { id, expect, note, twin, ...rest } = step as unknown as Omit<ScenarioStep, 'operation'>;
      return { id, expect, note, twin: twin ? defined(twin) : twin, operation: defined(rest) as Operation | Check };
    }),
  };
}
