/**
 * What must have happened in a case for a rule to have had a subject. A rule counts as exercised in each case in which all
 * of it did happen while the sanitizer (or the property) watched: commands by name, else features.
 */
import { COMMANDS } from '../../../spec/commands.ts';
import { RULES, ruleNamed } from '../../sanitizer/index.ts';
import { FEATURE, type FeatureName, type Features } from './features.ts';

type Cause = FeatureName | keyof typeof COMMANDS;
/** All of these; of a list inside, any. */
type Causes = readonly (Cause | readonly Cause[])[];

const S2_USED = ['mode S2', 'mode nested'] as const;
const TLBI_STAGE1 = ['CMD_TLBI_NH_ALL', 'CMD_TLBI_NH_ASID', 'CMD_TLBI_NH_VA', 'CMD_TLBI_NH_VAA'] as const;
const TLBI = ['CMD_TLBI_S2_IPA', 'CMD_TLBI_S12_VMALL', 'CMD_TLBI_NSNH_ALL', ...TLBI_STAGE1] as const;
const RELIANCE = ['page free', 'unmap done'] as const;
const CHANGED = ['STE replaced', 'STE made valid'] as const;

/** For each rule of the sanitizer that it can decide. */
export const RULE_CAUSES: Readonly<Record<string, Causes>> = {
  'CFG-1': ['CMD_CFGI_STE', CHANGED],
  'CFG-2': ['CMD_CFGI_STE', CHANGED],
  'CFG-3': ['STE made valid'],
  'CFG-4': ['STE replaced'],
  'CFG-5': [CHANGED],
  'CFG-6': ['CFGI without Leaf'],
  'CFG-7': ['mode S1', 'page free'],
  'CFG-8': ['CD table shared', ['CMD_CFGI_CD', 'CMD_CFGI_CD_ALL']],
  'CFG-9': ['weak stores', ['CMD_CFGI_STE', 'CMD_CFGI_CD', ...TLBI]],
  'CFG-10': ['VMID shared'],
  'CFG-11': ['mode S1'],
  'CFG-12': ['mode S1', 'mode nested'],
  'CFG-13': ['CD table shared'],
  'CFG-14': ['STE replaced', S2_USED],
  'CFG-15': ['STE replaced', 'mode S1'],
  'CFG-16': ['CR2 written', 'SMMUEN set'],
  'CFG-17': ['CONT'],
  'CFG-18': ['Stream table set'],
  'CFG-19': ['SMMUEN set'],
  'CFG-21': ['stream given'],
  'TLB-1': [RELIANCE, TLBI],
  'TLB-2': ['page free', TLBI],
  'TLB-3': ['page free', TLBI],
  'TLB-4': [TLBI],
  'TLB-5': ['CMD_TLBI_S2_IPA', 'mode nested', RELIANCE],
  'TLB-6': ['CMD_TLBI_S2_IPA', 'CMD_TLBI_NH_ALL', 'mode nested', RELIANCE],
  'TLB-8': [TLBI, RELIANCE],
  'TLB-9': ['CMD_TLBI_NH_ASID', RELIANCE],
  'TLB-10': [['CMD_TLBI_S2_IPA', 'CMD_TLBI_NH_VA', 'CMD_TLBI_NH_VAA']],
  'TLB-11': [TLBI, 'CMD_SYNC', RELIANCE],
  'TLB-12': ['operation done', TLBI],
  'TLB-13': [[...S2_USED, 'mode S1']],
  'TLB-14': [CHANGED],
  'TLB-15': [TLBI, 'operation done'],
  'VMID-1': [['VMID free', 'VMID alloc'], S2_USED],
  'VMID-2': [['VMID free', 'VMID alloc'], S2_USED],
  'VMID-3': ['VMID free', S2_USED, 'CMD_TLBI_S12_VMALL'],
  'VMID-4': ['VMID free', S2_USED],
  'VMID-5': ['VMID alloc'],
  'VMID-6': ['CMD_TLBI_S2_IPA', RELIANCE, S2_USED],
  'VMID-7': ['VMID free', 'VMID alloc'],
  'VMID-8': ['CMD_TLBI_S2_IPA', RELIANCE],
  'VMID-9': [['VMID alloc', ...S2_USED]],
  'VMID-10': ['VMID alloc'],
  'VMID-11': ['SMMUEN set', 'VMID alloc'],
  'VMID-13': ['SMMUEN cleared', 'VMID free'],
  'VMID-14': ['VMID free', 'CMD_TLBI_S12_VMALL'],
  'VMID-15': ['VMID free', 'CMD_TLBI_S12_VMALL'],
  'VMID-16': ['operation failed', 'VMID free'],
  'VMID-17': ['VMID free'],
  'VMID-18': [S2_USED, 'VMID alloc'],
  'ASID-1': [['ASID free', 'ASID alloc'], 'mode S1'],
  'ASID-2': [['ASID free', 'ASID alloc'], 'mode S1'],
  'ASID-3': ['ASID free', 'mode S1', 'CMD_TLBI_NH_ASID'],
  'ASID-4': ['ASID free', 'mode S1'],
  'ASID-5': ['ASID free', ['CMD_CFGI_CD', 'CMD_CFGI_CD_ALL']],
  'ASID-7': ['mode S1'],
  'ASID-8': ['operation done', TLBI_STAGE1, 'mode nested'],
  'ATS-1': ['EATS', 'ATS on', RELIANCE],
  'ATS-2': ['EATS', 'CMD_ATC_INV'],
  'ATS-3': ['ATS on'],
  'ATS-4': ['EATS', 'ATS off'],
  'ATS-5': ['EATS', 'STE replaced'],
  'ATS-6': ['EATS', 'SMMUEN set'],
  'ATS-7': ['SMMUEN cleared', 'ATS on'],
  'ATS-8': ['ATC_INV timeout'],
  'ATS-9': ['CMD_ATC_INV', RELIANCE],
  'ATS-10': ['CMD_ATC_INV', 'mode nested', RELIANCE],
  'ATS-12': ['ATS on', 'stream given'],
  'ATS-13': ['page request', 'stream given'],
  'ATS-14': ['CMD_ATC_INV', RELIANCE],
  'DET-1': ['stall', ['detach done', 'stream given']],
  'DET-3': ['CMD_RESUME'],
  'DET-4': ['S2S'],
  'DET-6': ['detach done'],
  'DET-8': ['page free', 'CMD_SYNC'],
  'DET-9': ['stream given'],
  'DET-10': ['mode nested'],
  'CMDQV-1': ["VM's VINTF on", 'VMID alloc'],
  'CMDQV-2': ["VM's VINTF on", 'SID pair written'],
  'CMDQV-4': ['SID pair written', 'stream given'],
  'CMDQV-5': ['SID pair written'],
  'CMDQV-6': ["VM's VINTF on", 'SID pair written'],
  'CMDQV-7': ["VM's VINTF on", 'EATS', 'operation done'],
  'CMDQV-8': ['VINTF off'],
  'CMDQV-9': ['VCMDQ unmapped'],
  'CMDQV-10': ["VM's VINTF on", 'VCMDQ disabled'],
  'CMDQV-11': ['VCMDQ enabled', 'page free'],
  'CMDQV-12': ["VM's VINTF on"],
  'CMDQV-13': ["VM's VINTF on"],
  'CMDQV-14': ['VCMDQ enabled', RELIANCE],
  'CMDQV-CONS': ['VCMDQ enabled'],
  'CMDQV-BASE': ['VCMDQ enabled'],
  'CMDQV-ALLOC': ['CMDQ_ALLOC written', 'VCMDQ mapped'],
};

/** For properties; one that is not here has a subject in every case. */
export const PROPERTY_CAUSES: Readonly<Record<string, Causes>> = {
  's2vmid-owned': [S2_USED],
  'vmid-free': ['VMID free'],
  'vmid-counted': ['VMID alloc'],
  'failure-changes-nothing': ['error result'],
};

const numberOf = (cause: Cause): number => {
  if (cause in FEATURE) return FEATURE[cause as FeatureName];
  return COMMANDS[cause as keyof typeof COMMANDS].opcode;
};

/** What a rule asks for, by number: one of each list. */
type Subject = readonly (readonly number[])[];

const subject = (causes: Causes): Subject =>
  causes.map((cause) => (typeof cause === 'string' ? [cause] : cause).map(numberOf));

/** Whether a rule had a subject in a case. */
export const hadSubject = (seen: Features, wanted: Subject): boolean =>
  wanted.every((any) => any.some((n) => seen[n] === 1));

/** Announcements that a rule needs, as features: any of a kind that comes in two forms. */
const NEEDS: Readonly<Record<string, readonly Cause[]>> = {
  vmid: ['VMID alloc', 'VMID free'],
  asid: ['ASID alloc', 'ASID free'],
  page: ['page free'],
  operation: ['operation done'],
  stream: ['stream given', 'stream back'],
};

/** The sanitizer's rules that can be decided, with what each asks for, its announcements included. */
export const RULE_SUBJECTS: readonly (readonly [id: string, wanted: Subject])[] = RULES.flatMap(({ id }) => {
  const causes = RULE_CAUSES[id];
  if (causes === undefined) return [];
  const needs = (ruleNamed(id).needs ?? []).map((kind) => NEEDS[kind] ?? []);
  return [[id, subject([...causes, ...needs])] as const];
});

const none: Subject = [];
const subjects = new Map(Object.entries(PROPERTY_CAUSES).map(([name, causes]) => [name, subject(causes)]));

/** What a property asks for. */
export const propertySubject = (name: string): Subject => subjects.get(name) ?? none;
