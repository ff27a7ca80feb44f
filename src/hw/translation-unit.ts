/** Translation as the rest of the SMMU sees it: one transaction at a time, and maintenance of what it caches. */
import type { CacheMaintenance } from './commands/context.ts';
import type { Transaction } from './transaction.ts';

/** Translates, and keeps caches. */
export interface TranslationUnit extends CacheMaintenance {
  /** Fills in the transaction's outcome. */
  translate(t: Transaction): void;
}

/** Translates nothing: for register and queue tests. */
export class NoTranslation implements TranslationUnit {
  translate(t: Transaction): void {
    t.reset();
  }
  tlb(): void {}
  ste(): void {}
  steRange(): void {}
  allConfig(): void {}
  cd(): void {}
  allCds(): void {}
  vms(): void {}
  prefetch(): void {}
}

/** The translation of a machine. */
export const makeTranslation = (): TranslationUnit => new NoTranslation();
