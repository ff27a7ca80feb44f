/** What can be covered: the full lists, from the tables of spec/ and the sanitizer, without what cannot occur in a lab. */
import { COMMANDS } from '../../../spec/commands.ts';
import { EVENTS } from '../../../spec/events.ts';
import { neverDecided } from '../../sanitizer/rule.ts';
import { RULES } from '../../sanitizer/rules/index.ts';
import type { VmidState } from '../../sanitizer/vmids.ts';

/** Modes of a stream, as STE.Config says; V=0 on the way from one to another is part of the way. */
export const MODES = ['abort', 'bypass', 'S1', 'S2', 'nested'] as const;

/** States of a VMID (spec/vmid-lifecycle.md). */
export const VMID_STATES: readonly VmidState[] = [
  'FREE',
  'ALLOCATED',
  'INSTALLED',
  'DRAINING-CFG',
  'DRAINING-TLB',
  'CLEAN',
];

/** The edges of the state diagram of spec/vmid-lifecycle.md. */
export const VMID_EDGES: readonly (readonly [from: VmidState, to: VmidState])[] = [
  ['FREE', 'ALLOCATED'],
  ['ALLOCATED', 'INSTALLED'],
  ['INSTALLED', 'INSTALLED'],
  ['INSTALLED', 'DRAINING-CFG'],
  ['DRAINING-CFG', 'INSTALLED'],
  ['DRAINING-CFG', 'DRAINING-TLB'],
  ['DRAINING-TLB', 'INSTALLED'],
  ['DRAINING-TLB', 'CLEAN'],
  ['CLEAN', 'INSTALLED'],
  ['CLEAN', 'FREE'],
  ['ALLOCATED', 'FREE'],
];

/** What a CMDQV can be seen to do. */
export const CMDQV_STATES = [
  'VINTF of the host enabled',
  'VINTF of a VM enabled',
  'VINTF disabled',
  'SID pair written',
  'VCMDQ mapped',
  'VCMDQ unmapped',
  'VCMDQ enabled',
  'VCMDQ disabled',
  'command of a VM',
  'command error of a VM',
  'access to a slot without VCMDQ',
] as const;

/** Names a step from one state to another. */
export const edge = (from: string, to: string): string => `${from} to ${to}`;

/** Commands that nobody can issue in a lab, and why. */
export const NEVER_COMMANDS: Readonly<Record<string, string>> = {
  CMD_PREFETCH_ADDR: 'a hint: the driver sends none, and a VM may not',
  CMD_CFGI_STE_RANGE: 'the driver sends CMD_CFGI_STE and CMD_CFGI_ALL',
  CMD_CFGI_VMS_PIDM: 'the driver sets no VMSPtr',
  CMD_TLBI_EL2_VAA: 'the driver names an ASID with every address at EL2',
  CMD_DPTI_ALL: 'the Device Permission Table is not modelled',
  CMD_DPTI_PA: 'the Device Permission Table is not modelled',
};

/** Events that no SMMU of a lab writes, and why. */
export const NEVER_EVENTS: Readonly<Record<string, string>> = {
  F_UUT: 'devices make no transaction that is not supported',
  F_TLB_CONFLICT: 'the TLB modelled here never matches two entries',
  F_CFG_CONFLICT: 'the configuration caches modelled here never match two entries',
  E_PAGE_REQUEST: 'devices give no hints',
  F_VMS_FETCH: 'the driver sets no VMSPtr',
  F_STE_FETCH: 'the host has its tables in memory',
  F_CD_FETCH: 'what lies outside memory is not mapped at stage 2: F_TRANSLATION',
  F_WALK_EABT: 'what lies outside memory is not mapped at stage 2: F_TRANSLATION',
  F_ACCESS: 'nobody clears an Access flag',
  C_BAD_STREAMID: 'the Stream table has room for all devices',
};

/** Rules of the sanitizer that have no subject in a lab, and why. */
export const NEVER_RULES: Readonly<Record<string, string>> = {
  'CFG-17': 'the driver makes no CONT blocks, and a guest has no STEs',
};

/** Rules whose subject is what only the seeded schedule does, and why. */
export const SEEDED_RULES: Readonly<Record<string, string>> = {
  'CFG-9': 'stores overtake each other',
};

/** Steps of a VMID that do not occur in a lab, and why. */
export const NEVER_VMID_STEPS: Readonly<Record<string, string>> = {
  'DRAINING-CFG to INSTALLED':
    'the driver waits for its CMD_CFGI_STE before it installs anything; of two that are lost no case is drawn',
};

/** Commands, CMD_CFGI_ALL among them, by name and opcode. */
export const COMMAND_LIST: readonly { readonly name: string; readonly opcode: number }[] = Object.entries(COMMANDS)
  .filter(([, { nonSecure }]) => nonSecure)
  .map(([name, { opcode }]) => ({ name, opcode }));

/** Events by name and number. */
export const EVENT_LIST: readonly { readonly name: string; readonly number: number }[] = Object.entries(EVENTS).map(
  ([name, { number }]) => ({ name, number }),
);

/** Rules of the sanitizer that it can decide. */
export const DECIDABLE: readonly string[] = RULES.filter((rule) => !neverDecided(rule)).map(({ id }) => id);
