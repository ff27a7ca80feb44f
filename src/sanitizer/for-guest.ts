/** Commands that the host sends for a VM on the SMMU's own queue: what they may name (VMID-8, ASID-8, DET-9). */
import type { Maintenance } from './commands.ts';
import { type Context, hex } from './context.ts';

/** End of the name of an operation for a stream that is not attached through the vIOMMU. */
const UNATTACHED = 'not attached';

/** See the module comment. Between begin and done, as announced. */
export class ForGuest {
  readonly #context: Context;
  readonly #smmu: string;
  readonly #vmidOf: (sid: number) => number;
  /** Streams of the VM; true: attached through the vIOMMU whose commands these are. */
  readonly #streams = new Map<number, boolean>();
  #commands: Maintenance[] = [];

  /** @param vmidOf VMID of the nested STE of a stream, or -1 */
  constructor(context: Context, smmu: string, vmidOf: (sid: number) => number) {
    this.#context = context;
    this.#smmu = smmu;
    this.#vmidOf = vmidOf;
  }

  /** Commands for the VM of a stream begin. */
  begins(sid: number, what: string): void {
    this.#streams.set(sid, !what.endsWith(UNATTACHED));
  }

  /** A command was consumed. */
  consumed(what: Maintenance): void {
    if (this.#streams.size > 0) this.#commands.push(what);
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
