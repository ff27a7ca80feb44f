import { expect, test } from 'vitest';
import { runCampaign } from '../../src/testing/campaign.ts';
import type { Lab } from '../../src/testing/lab.ts';
import type { Property, Violation } from '../../src/testing/property.ts';
import { forEachTranslatingSte } from '../../src/testing/stes.ts';

/** What is kept of the Stream tables, and what a look through them finds. */
function compare(lab: Lab): { readonly found: number; readonly violation: Violation | null } {
  let found = 0;
  for (const smmu of lab.machine.smmus) {
    const fresh: string[] = [];
    forEachTranslatingSte(lab.machine.memory, smmu, (sid, ste) => void fresh.push(`${sid}: ${[...ste]}`));
    const kept = lab.streams.of(smmu).map(({ sid, ste }) => `${sid}: ${[...ste]}`);
    found += fresh.length;
    if (kept.join('\n') !== fresh.join('\n'))
      return { found, violation: { rule: 'streams', message: `${smmu.name} keeps ${kept}, and memory has ${fresh}` } };
  }
  return { found, violation: null };
}

test('the translating STEs that are kept are those in memory, after each operation', () => {
  let seen = 0;
  const property: Property = {
    name: 'streams',
    title: 'what is kept is what is there',
    foreign: true,
    monitor: ({ lab }) => ({
      after: () => {
        const { found, violation } = compare(lab);
        seen += found;
        return violation;
      },
    }),
  };
  const [report] = runCampaign([property], { seed: 5, runs: 60, fixed: { maxOps: 60 } });
  expect(report?.findings).toEqual([]);
  expect(seen).toBeGreaterThan(1000);
});
