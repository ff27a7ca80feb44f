/** Ways to break a driver by wrapping one part, and how a property finds them. */
import { opcodeOf, STE, type Words } from '../../spec/index.ts';
import type { DriverParts } from '../../src/driver/arm-smmu-v3/index.ts';
import type { CaseOptions } from '../../src/testing/arbitraries/case.ts';
import { type FoundCase, runProperty } from '../../src/testing/campaign.ts';
import type { Property } from '../../src/testing/property.ts';
import { operationText } from '../../src/testing/story.ts';

export type Wrap = (shipped: DriverParts) => DriverParts;

/** The case that breaks a property on a driver with a wrapped part, and its story without arguments. */
export function find(
  property: Property,
  parts: Wrap,
  fixed: CaseOptions = {},
  runs = 600,
): { readonly found: FoundCase; readonly story: readonly string[] } {
  const report = runProperty(property, { seed: 20261120, runs, fixed, extras: { parts } });
  const [found] = report.findings;
  if (found === undefined) throw new Error(`${property.name} holds for ${report.runs} runs`);
  const story = found.case.steps.map(({ operation }) => operationText(operation).replace(/^\w+ = |\(.*/g, ''));
  return { found, story };
}

/** Commands of these opcodes never reach the queue. */
export const without =
  (...opcodes: readonly number[]): Wrap =>
  (shipped) => ({
    ...shipped,
    commandQueue: {
      issue: (queue, commands, sync) => {
        const left = commands.filter((words: Words) => !opcodes.includes(opcodeOf(words)));
        return shipped.commandQueue.issue(queue, left, sync);
      },
    },
  });

/** The VMID policy with some functions replaced. */
export const policy =
  (change: (shipped: DriverParts['vmidPolicy']) => Partial<DriverParts['vmidPolicy']>): Wrap =>
  (shipped) => ({ ...shipped, vmidPolicy: { ...shipped.vmidPolicy, ...change(shipped.vmidPolicy) } });

/** The stage 2 of whoever came first is everybody's: in STEs of one kind. */
export const oneStage2 =
  (kind: 's2DomainSte' | 'nestedCdTableSte'): Wrap =>
  ({ makers, ...shipped }) => {
    let first: bigint | undefined;
    const one = (ste: Words): Words => {
      first ??= STE.get(ste, 'S2TTB');
      STE.set(ste, 'S2TTB', first);
      return ste;
    };
    const { s2DomainSte, nestedCdTableSte } = makers;
    const wrapped: Partial<DriverParts['makers']> =
      kind === 's2DomainSte'
        ? { s2DomainSte: (...args) => one(s2DomainSte(...args)) }
        : { nestedCdTableSte: (...args) => one(nestedCdTableSte(...args)) };
    return { ...shipped, makers: { ...makers, ...wrapped } };
  };
