/** The rules as a page: docs/sanitizer.md is made from this. */
import { neverDecided, type RuleInfo } from './rule.ts';
import { RULES } from './rules/index.ts';

/** Titles of the groups, by the part of the id before the hyphen. */
const TITLES: Readonly<Record<string, string>> = {
  CFG: 'STEs, CDs and registers',
  TLB: 'Translation tables and the TLB',
  VMID: 'VMIDs',
  ASID: 'ASIDs',
  ATS: 'ATS and page requests',
  DET: 'Detach, faults, queues',
  CMDQV: 'Tegra241 CMDQV',
};

const groupOf = ({ id }: RuleInfo): string => id.slice(0, id.indexOf('-'));

function ruleLines(rule: RuleInfo): string[] {
  const forms = rule.ordering === true ? ', strict or lenient' : '';
  const lines = [`**${rule.id}** (${rule.severity}${forms}; ${rule.section}). ${rule.broken}`];
  if (rule.observed !== '') lines.push(`- Looked at: ${rule.observed}.`);
  if (rule.needs !== undefined) lines.push(`- Undecided without announcements of: ${rule.needs.join(', ')}.`);
  if (rule.undecidable !== undefined)
    lines.push(`- ${neverDecided(rule) ? 'Never decided' : 'Not decided'}: ${rule.undecidable}`);
  return [...lines, ''];
}

/** All rules as Markdown, by group. */
export function rulesPage(): string {
  const out: string[] = [];
  for (const group of new Set(RULES.map(groupOf))) {
    out.push(`## ${TITLES[group] ?? group}`, '');
    for (const rule of RULES) if (groupOf(rule) === group) out.push(...ruleLines(rule));
  }
  return out.join('\n');
}
