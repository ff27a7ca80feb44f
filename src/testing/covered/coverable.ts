/** What a campaign could cover, given what is fixed and which properties are asked: the rest cannot occur. */
import { allowed, type CaseOptions, DRAWN, fittingFlavours } from '../arbitraries/case.ts';
import type { Coverable } from '../coverage.ts';
import type { LabChoices } from '../flavour.ts';
import { FLAVOURS } from '../flavours/index.ts';
import { OPERATION_NAMES } from '../operations.ts';
import type { Property } from '../property.ts';
import { ERRNO_LIST, FAILURE_POINTS, ofCmdqv, underPolicy } from './errnos.ts';
import {
  CMDQV_STATES,
  COMMAND_LIST,
  DECIDABLE,
  EVENT_LIST,
  edge,
  MODES,
  NEVER_COMMANDS,
  NEVER_EVENTS,
  NEVER_RULES,
  NEVER_VMID_STEPS,
  SEEDED_RULES,
  VMID_EDGES,
} from './lists.ts';

/** The preset whose SMMUs have a CMDQV. */
const WITH_CMDQV = 'grace';
/** Rules of the sanitizer about a CMDQV. */
const ABOUT_CMDQV = 'CMDQV-';

/** Steps of a stream. A device that is bound to a VM is blocked: from and to bypass there is no other way. */
const STREAM_STEPS: readonly string[] = MODES.flatMap((from) =>
  MODES.filter((to) => to !== from && (![from, to].includes('bypass') || [from, to].includes('abort'))).map((to) =>
    edge(from, to),
  ),
);

/** See the module comment. */
export function coverable(properties: readonly Property[], fixed: CaseOptions): Coverable {
  const left: LabChoices = { ...DRAWN, ...(allowed(fixed) ?? {}) };
  const names = (values: readonly unknown[] | undefined): string[] => [...new Set((values ?? []).map(String))];
  const foreign = fixed.policy === 'foreign';
  const presets = names(left.preset);
  const watched = properties.some(({ sanitizer }) => sanitizer === true);
  const cmdqv = presets.includes(WITH_CMDQV);
  const drawn = properties.some(({ cases, run }) => cases === undefined && run === undefined);
  const eager = fixed.schedule === 'eager';
  const judged = (id: string): boolean =>
    (cmdqv || !id.startsWith(ABOUT_CMDQV)) && !(id in NEVER_RULES) && !(eager && id in SEEDED_RULES);
  const vmidSteps = VMID_EDGES.map(([from, to]) => edge(from, to)).filter((step) => !(step in NEVER_VMID_STEPS));
  return {
    policies: foreign ? [] : names(left.policy),
    presets,
    vmidBits: names(left.vmidBits),
    schedules: fixed.schedule === undefined ? ['eager', 'seeded'] : [fixed.schedule],
    flavours: drawn ? fittingFlavours(FLAVOURS, fixed).map(({ flavour }) => flavour.name) : [],
    operations: OPERATION_NAMES,
    errnos: ERRNO_LIST.filter((one) => underPolicy(one, fixed.policy)),
    failures: FAILURE_POINTS.filter((point) => cmdqv || !ofCmdqv(point)),
    commands: ['CMD_CFGI_ALL', ...COMMAND_LIST.map(({ name }) => name)].filter((name) => !(name in NEVER_COMMANDS)),
    events: EVENT_LIST.map(({ name }) => name).filter((name) => !(name in NEVER_EVENTS)),
    streams: STREAM_STEPS,
    vmids: watched && !foreign ? vmidSteps : [],
    cmdqv: cmdqv ? CMDQV_STATES : [],
    rules: [...properties.map(({ name }) => name), ...(watched ? DECIDABLE.filter(judged) : [])],
  };
}
