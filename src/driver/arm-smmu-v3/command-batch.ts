import { CMD_ATC_INV, opcodeOf, type Words } from '../../../spec/index.ts';
import type { CommandSink } from './command-queue.ts';
import type { Smmu } from './smmu.ts';

/** Commands held back before they are published (`CMDQ_BATCH_ENTRIES`). */
export const BATCH_ENTRIES = 64;

/**
 * Issues a list and finds out which devices never answered a CMD_ATC_INV of it (`arm_smmu_cmdq_issue_cmdlist`).
 * @param asked StreamIDs of earlier CMD_ATC_INVs that the CMD_SYNC of this list also waits for
 */
export function issueList(
  smmu: Smmu,
  queue: CommandSink,
  commands: readonly Words[],
  sync: boolean,
  asked: readonly number[] = [],
): boolean {
  const before = queue.atcTimeouts;
  const done = smmu.parts.commandQueue.issue(queue, commands, sync);
  if (queue.atcTimeouts !== before) smmu.atcTimedOut([...asked, ...atcStreams(commands)]);
  return done;
}

function atcStreams(commands: readonly Words[]): number[] {
  const streams: number[] = [];
  for (const command of commands)
    if (opcodeOf(command) === CMD_ATC_INV.opcode) streams.push(CMD_ATC_INV.num(command, 'StreamID'));
  return streams;
}

/**
 * Gathers commands for one queue (`struct arm_smmu_cmdq_batch`). A full batch is published without a CMD_SYNC; the
 * last piece carries it. The first command chooses the queue.
 */
export class CommandBatch {
  readonly #smmu: Smmu;
  #queue: CommandSink | null = null;
  #commands: Words[] = [];
  /** Streams of CMD_ATC_INVs published without a CMD_SYNC yet. */
  #asked: number[] = [];
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
    const commands = this.#commands;
    this.#commands = [];
    // Without a CMD_SYNC the queue stays the same: the one that comes waits for these commands too.
    if (sync) this.#queue = null;
    const done = issueList(this.#smmu, queue, commands, sync, this.#asked);
    this.#asked = sync ? [] : [...this.#asked, ...atcStreams(commands)];
    this.#completed = this.#completed && done;
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
  issueList(smmu, smmu.queueFor(command), [command], false);
}
