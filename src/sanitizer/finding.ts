/** What the sanitizer reports. */
import type { Severity } from './rule.ts';

/** What a finding is about, as far as it applies. */
export interface Subject {
  readonly smmu: string;
  readonly StreamID?: number;
  readonly SubstreamID?: number;
  readonly VMID?: number;
  readonly ASID?: number;
  /** Physical address of the record, table or page. */
  readonly address?: bigint;
  /** Queue, for rules about queues. */
  readonly queue?: string;
  /** Whose software broke the rule. Absent: the host's. */
  readonly by?: 'guest';
}

/** A broken rule. */
export interface Finding {
  readonly rule: string;
  readonly severity: Severity;
  /** Whose software it was. What a VM breaks in its own stage 1 hurts the VM alone. */
  readonly by: 'host' | 'guest';
  readonly message: string;
  readonly subject: Subject;
  /** Moment at which it was found, as the history counts. */
  readonly time: number;
  /** What led there, oldest first: who wrote what, which command, when. */
  readonly history: readonly string[];
}
