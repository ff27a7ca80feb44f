/** Commands that the host sends for a VM on the SMMU's own queue: what they may name (VMID-8, ASID-8, DET-9). */
import type { Maintenance } from './commands.ts';
import { type Context, hex } from './context.ts';

/** End of the name of an operation for a stream that is not attached through the vIOMMU. */
const UNATTACHED = 'not attached';

/** See the module comment. Between begin and done, as announced; what still waits in the queue then is the host's own. */
export class ForGuest {
  readonly #context: Context;
  readonly #smmu: string;
  readonly #vmidOf: (sid: number) => number;
  /** Streams of the VM; true: attached through the vIOMMU whose commands these are. */
  readonly #streams = new Map<number, boolean>();
  readonly #waiting: () => number;
  #commands: Maintenance[] = [];
  /** Commands of before that hardware has yet to consume. */
  #earlier = 0;

  /**
   * @param vmidOf VMID of the nested STE of a stream, or -1
   * @param waiting commands that hardware has not consumed: after a CMD_SYNC timed out there are some
   */
  constructor(context: Context, smmu: string, vmidOf: (sid: number) => number, waiting: () => number) {
    this.#context = context;
    this.#smmu = smmu;
    this.#vmidOf = vmidOf;
    this.#waiting = waiting;
  }

  /** Commands for the VM of a stream begin. */
  begins(sid: number, what: string): void {
    if (this.#streams.size === 0) this.#earlier = this.#waiting();
    this.#streams.set(sid, !what.endsWith(UNATTACHED));
  }

  /** A command was consumed; undefined: one that invalidates nothing. */
  consumed(what: Maintenance | undefined): void {
    if (this.#streams.size === 0) return;
    if (this.#earlier > 0) this.#earlier--;
    else if (what !== undefined) this.#commands.push(what);
  }

  /** They are done: those for one of the streams are those for all. */
  done(sid: number): void {
    if (!this.#streams.has(sid)) return;
    for (const command of this.#commands) this.#judge(command);
    this.#streams.clear();
    this.#commands = [];
  }

  #judge(command: Maintenance): void {
    if (command.kind === 'tlbi') this.#judgeVmid(command.flush.name, command.flush.VMID);
    else if (command.kind === 'cd' || command.kind === 'atc') this.#judgeStream(command.sid);
  }

  #judgeVmid(name: string, VMID: number): void {
    const attached = [...this.#streams].filter(([, through]) => through).map(([sid]) => this.#vmidOf(sid));
    const own = [...new Set(attached.filter((vmid) => vmid >= 0))];
    if (own.length === 0 || own.includes(VMID)) return;
    // VMID 0 tags stage 1 alone: the VM's ASID was taken for one of the host's.
    this.#context.report(
      VMID === 0 ? 'ASID-8' : 'VMID-8',
      `${this.#smmu}: ${name} for a VM names VMID ${VMID}, and its streams are tagged with VMID ${own.join(', ')}`,
      { smmu: this.#smmu, VMID },
    );
  }

  #judgeStream(sid: number): void {
    if (this.#streams.has(sid)) return;
    this.#context.report(
      'DET-9',
      `${this.#smmu}: a command for a VM names StreamID ${hex(sid)}, which is not its own`,
      {
        smmu: this.#smmu,
        StreamID: sid,
      },
    );
  }
}
