/** Makes a failing case smaller than drawing allows: steps that came as a chain are taken out one by one. */
import type { LabCase } from './case.ts';
import { CaseError } from './lab.ts';

/**
 * The smallest case that still fails, found by leaving out runs of steps, then settings. Deterministic.
 * @param fails whether a case still fails; it does for `start`
 */
export function reduceCase(start: LabCase, fails: (one: LabCase) => boolean): LabCase {
  let least = start;
  const attempt = (one: LabCase): boolean => {
    if (!fails(one)) return false;
    least = one;
    return true;
  };
  for (let before = -1; before !== least.steps.length; ) {
    before = least.steps.length;
    for (let size = Math.max(1, before >> 1); size >= 1; size >>= 1) {
      for (let at = least.steps.length - size; at >= 0; at--)
        attempt({ ...least, steps: [...least.steps.slice(0, at), ...least.steps.slice(at + size)] });
    }
  }
  attempt({ ...least, config: { ...least.config, schedule: { mode: 'eager' } } });
  for (const size of ['vms', 'smmus', 'devices'] as const) {
    const { [size]: _, ...config } = least.config;
    attemptNamed({ ...least, config: { ...config, [size]: 1 } }, attempt);
  }
  return least;
}

/** Devices are numbered through all SMMUs, so fewer of them may leave names without a meaning: then it stays as it is. */
function attemptNamed(one: LabCase, attempt: (one: LabCase) => boolean): void {
  try {
    attempt(one);
  } catch (error) {
    if (!(error instanceof CaseError)) throw error;
  }
}
