import type { Words } from '../../../spec/index.ts';
import type { CommandSink } from './command-queue.ts';
import type { Smmu } from './smmu.ts';

/** Commands held back before they are published (`CMDQ_BATCH_ENTRIES`). */
export const BATCH_ENTRIES = 64;

/**
 * Gathers commands for one queue (`struct arm_smmu_cmdq_batch`). A full batch is published without a CMD_SYNC; the
 * last piece carries it. The first command chooses the queue.
 */
export class CommandBatch {
  readonly #smmu: Smmu;
  #queue: CommandSink | null = null;
  #commands: Words[] = [];
  #completed = true;

  constructor(smmu: Smmu) {
    this.#smmu = smmu;
  }

  /** `arm_smmu_cmdq_batch_add_cmd_p`. */
  add(command: Words): void {
    const forced = this.#smmu.features.forceSync && this.#commands.length === BATCH_ENTRIES - 1;
    if (this.#queue !== null && (forced || !this.#queue.supports(command))) this.#flush(true);
    if (this.#commands.length === BATCH_ENTRIES) this.#flush(false);
    this.#queue ??= this.#smmu.queueFor(command);
    this.#commands.push(command);
  }

  /** `arm_smmu_cmdq_batch_submit`: false if this or an earlier CMD_SYNC of the batch timed out. */
  submit(): boolean {
    this.#flush(true);
    return this.#completed;
  }

  get empty(): boolean {
    return this.#commands.length === 0;
  }

  #flush(sync: boolean): void {
    const queue = this.#queue ?? this.#smmu.cmdq;
    const done = this.#smmu.parts.commandQueue.issue(queue, this.#commands, sync);
    this.#completed = this.#completed && done;
    this.#commands = [];
    this.#queue = null;
  }
}

/** One list with its own CMD_SYNC (`arm_smmu_cmdq_issue_cmd_with_sync`). False: timed out. */
export function issueWithSync(smmu: Smmu, ...commands: readonly Words[]): boolean {
  const batch = new CommandBatch(smmu);
  for (const command of commands) batch.add(command);
  return batch.submit();
}

/** One command without CMD_SYNC (`arm_smmu_cmdq_issue_cmd`). */
export function issueAlone(smmu: Smmu, command: Words): void {
  smmu.parts.commandQueue.issue(smmu.queueFor(command), [command], false);
}
