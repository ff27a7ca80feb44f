/** Every rule, in the order of their ids' groups. */
import type { RuleInfo } from '../rule.ts';
import { ATS_RULES, DET_RULES } from './ats.ts';
import { CFG_RULES } from './cfg.ts';
import { CMDQV_RULES } from './cmdqv.ts';
import { TLB_RULES } from './tlb.ts';
import { ASID_RULES, VMID_RULES } from './vmid.ts';

/** All rules of the sanitizer. */
export const RULES: readonly RuleInfo[] = [
  ...CFG_RULES,
  ...TLB_RULES,
  ...VMID_RULES,
  ...ASID_RULES,
  ...ATS_RULES,
  ...DET_RULES,
  ...CMDQV_RULES,
];

const byId: ReadonlyMap<string, RuleInfo> = new Map(RULES.map((rule) => [rule.id, rule]));

/** A rule by its id. @throws RangeError for an unknown one */
export function ruleNamed(id: string): RuleInfo {
  const rule = byId.get(id);
  if (rule === undefined) throw new RangeError(`the sanitizer has no rule ${id}`);
  return rule;
}
