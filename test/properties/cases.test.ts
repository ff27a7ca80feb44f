/** Cases that a property, or the shipped driver, was wrong about, as `smmulab check` saved them. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { CMD_PRI_RESP } from '../../spec/index.ts';
import { caseOf, parseScenario, type Scenario } from '../../src/lab/scenario.ts';
import { runCase } from '../../src/testing/case.ts';
import { PROPERTIES } from '../../src/testing/properties/index.ts';
import { without } from './broken.ts';

const scenarioOf = (name: string): Scenario =>
  parseScenario(readFileSync(new URL(`../data/cases/${name}.yaml`, import.meta.url), 'utf8'));

test.each([
  ['dma-contained-sync-lost', 'a TLBI whose CMD_SYNC was lost may still be in the queue (IHI 0070 4.7.3)'],
  ['isolation-stall-ends-later', 'when the host ends an access that stalled is a matter of time (IHI 0070 3.12.2)'],
  [
    'rules-kept-retry-under-way',
    'a retry may stall again while its domain is left: its new stall is answered once (4.7.1)',
  ],
  [
    'rules-kept-answer-in-queue',
    'a page request is answered once the answer is in the queue before its stream is given away (8.1)',
  ],
  ['vsid-event-before-it-changed', 'an event waits in the queue while the device gets another vSID (DET-5)'],
  ['rules-kept-answer-in-vcmdq', "the same where the host's commands go through a VCMDQ (8.1)"],
  [
    'dma-contained-sva-of-an-owned-device',
    'no host driver binds a device that is owned (iommu_device_use_default_domain)',
  ],
  ['guest-commands-own-queue', "a VM's VCMDQ goes on while its ioctl is carried out"],
  ['guest-tables-reset-end', 'the end of a reset that never began writes nothing (pci_dev_reset_iommu_done)'],
  ['rules-kept-vcmdq-stays-on', 'what an enabled VCMDQ fetches by is left alone (tegra241-cmdqv 8)'],
])('%s: %s', (name) => {
  const scenario = scenarioOf(name);
  const property = PROPERTIES.find((one) => one.name === scenario.properties?.[0]);
  if (property === undefined) throw new Error(`${name} names no property`);
  const { finding, ops } = runCase(property, caseOf(scenario));
  expect(finding).toBeNull();
  expect(ops).toBeGreaterThanOrEqual(scenario.steps.length);
});

test('a page request without an answer in the queue is found [ATS-13]', () => {
  const property = PROPERTIES.find(({ name }) => name === 'rules-kept');
  if (property === undefined) throw new Error('no rules-kept');
  const one = caseOf(scenarioOf('rules-kept-answer-in-queue'));
  const { finding } = runCase(property, one, { extras: { parts: without(CMD_PRI_RESP.opcode) } });
  expect(finding?.message).toMatch(/^ATS-13: /);
});
