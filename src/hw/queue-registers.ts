/** What the three queues' registers have in common: guards, and index bits above the queue's size (6.3.26 to 6.3.28). */
import type { Register } from '../../spec/layout.ts';
import type { ControlRegisters } from './control-registers.ts';
import { guardsMayLeak } from './control-registers.ts';
import type { RegisterFile } from './registers.ts';
import { Ring } from './ring.ts';

/** The registers of one queue. */
export interface QueueRegisters {
  readonly base: Register;
  readonly prod: Register;
  readonly cons: Register;
  readonly entryBytes: number;
  /** IDR1's cap of LOG2SIZE. */
  readonly max: number;
  /** Its enable in CR0. */
  readonly enable: number;
  /** Which index hardware owns. */
  readonly owned: 'prod' | 'cons';
}

const ALL = 0xffffffff;

/** Attaches a queue's registers. BASE and the index that hardware owns can be written while the queue is off. */
export function attachQueue(file: RegisterFile, control: ControlRegisters, queue: QueueRegisters): Ring {
  const leaky = guardsMayLeak(file);
  const open = () => (leaky || control.cr0.off(queue.enable) ? ALL : 0);
  const base = file.attach(queue.base, { open });
  const ring = new Ring(base, file.cell(queue.prod), file.cell(queue.cons), queue.entryBytes, queue.max);
  const owned = queue.owned === 'prod' ? ring.prodCell : ring.consCell;
  const indexMask = owned.register.slot(queue.owned === 'prod' ? 'WR' : 'RD').mask;
  file.attach(owned.register, {
    open,
    read: () => (owned.lo & ~indexMask) | (queue.owned === 'prod' ? ring.prod : ring.cons),
  });
  return ring;
}
