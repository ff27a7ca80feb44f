/** Cases that a property was wrong about, as `smmulab check` saved them. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { caseOf, parseScenario } from '../../src/lab/scenario.ts';
import { runCase } from '../../src/testing/case.ts';
import { PROPERTIES } from '../../src/testing/properties/index.ts';

test.each([
  ['isolation-stall-ends-later', 'when the host ends an access that stalled is a matter of time (IHI 0070 3.12.2)'],
])('%s: %s', (name) => {
  const scenario = parseScenario(readFileSync(new URL(`../data/cases/${name}.yaml`, import.meta.url), 'utf8'));
  const property = PROPERTIES.find((one) => one.name === scenario.properties?.[0]);
  if (property === undefined) throw new Error(`${name} names no property`);
  const { finding, ops } = runCase(property, caseOf(scenario));
  expect(finding).toBeNull();
  expect(ops).toBeGreaterThanOrEqual(scenario.steps.length);
});
