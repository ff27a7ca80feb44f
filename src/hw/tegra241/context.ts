/** What the parts of one CMDQV share. */
import type { CommandTarget } from '../commands/context.ts';
import type { Memory } from '../memory.ts';
import type { Watch } from '../observer.ts';
import type { CmdqvCounts, CmdqvOptions } from './config.ts';

/** See the module comment. */
export interface CmdqvContext {
  /** Name of the SMMU beside it. */
  readonly smmu: string;
  readonly options: CmdqvOptions;
  readonly counts: CmdqvCounts;
  readonly memory: Memory;
  readonly watch: Watch;
  /** What commands act on: the SMMU. */
  readonly target: CommandTarget;
}

/**
 * Announces that software broke a rule of the CMDQV; ids as in `spec` of the sanitizer: CMDQV-1 and up.
 * maybeVm: a VM can do this too
 */
export function violation({ smmu, watch }: CmdqvContext, rule: string, what: string, maybeVm = false): void {
  watch.observer?.({ kind: 'cmdqv-violation', smmu, rule, what, maybeVm });
}

/** Why a write had no effect, or ''. */
export type Ignored = string;

/** Which copy of a repeated register stands at an offset, of the first `count`; -1: none. */
export function copyAt(
  offset: number,
  register: {
    readonly offset: number;
    readonly info: { readonly repeat?: { readonly count: number; readonly stride: number } };
  },
  count = register.info.repeat?.count ?? 1,
): number {
  const n = (offset - register.offset) / (register.info.repeat?.stride ?? 1);
  return Number.isInteger(n) && n >= 0 && n < count ? n : -1;
}
