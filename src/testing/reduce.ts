/** Makes a failing case smaller than drawing allows: steps that came as a chain are taken out one by one. */
import type { CaseStep, LabCase } from './case.ts';
import { CaseError } from './lab.ts';
import type { Operation } from './operation.ts';

/**
 * The smallest case that still fails, found by leaving out runs of steps, flags of operations, then settings.
 * Deterministic.
 * @param fails whether a case still fails; it does for `start`
 */
export function reduceCase(start: LabCase, fails: (one: LabCase) => boolean): LabCase {
  let least = start;
  const attempt = (one: LabCase): boolean => {
    if (!fails(one)) return false;
    least = one;
    return true;
  };
  // What no flag needs any more may go as well.
  for (let before: LabCase | null = null; before !== least; ) {
    before = least;
    for (let size = Math.max(1, before.steps.length >> 1); size >= 1; size >>= 1) {
      for (let at = least.steps.length - size; at >= 0; at--)
        attempt({ ...least, steps: [...least.steps.slice(0, at), ...least.steps.slice(at + size)] });
    }
    for (let at = 0; at < least.steps.length; at++)
      for (const change of plainer(least.steps[at])) {
        const step = least.steps[at];
        if (step === undefined) continue;
        const operation = { ...step.operation, ...change } as Operation;
        attempt({ ...least, steps: least.steps.with(at, { ...step, operation }) });
      }
  }
  attempt({ ...least, config: { ...least.config, schedule: { mode: 'eager' } } });
  for (const size of ['vms', 'smmus', 'devices'] as const) {
    const { [size]: _, ...config } = least.config;
    attemptNamed({ ...least, config: { ...config, [size]: 1 } }, attempt);
  }
  return least;
}

/** What makes a step plainer: a flag less, a vSTE that needs no vDEVICE. What is done in a second run stays. */
function plainer(step: CaseStep | undefined): readonly object[] {
  if (step === undefined || step.twin !== undefined) return [];
  const { operation } = step;
  const flags = Object.entries(operation).filter(([, value]) => value === true);
  const translates = operation.op === 'nestedAlloc' && operation.vste === 'translate';
  return [...flags.map(([flag]) => ({ [flag]: false })), ...(translates ? [{ vste: 'bypass' }] : [])];
}

/** Devices are numbered through all SMMUs, so fewer of them may leave names without a meaning: then it stays as it is. */
function attemptNamed(one: LabCase, attempt: (one: LabCase) => boolean): void {
  try {
    attempt(one);
  } catch (error) {
    if (!(error instanceof CaseError)) throw error;
  }
}
