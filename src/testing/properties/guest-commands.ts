/**
 * What a VM asks to be invalidated is invalidated, and nothing else: each of its commands reaches the SMMU's queue with
 * the VMID that its streams carry and the StreamID behind its vSID, in order, and a CMD_SYNC after the last has completed
 * when the call returns. A command that a VM may not send, or whose vSID no vDEVICE of it has, fails the call; a call of
 * which neither is true succeeds.
 *
 * Which vDEVICEs there are is kept here from what was asked for and granted; VMIDs are read from the Stream table.
 */
import {
  CMD_ATC_INV,
  CMD_CFGI_CD,
  CMD_CFGI_CD_ALL,
  CMD_SYNC,
  CMD_TLBI_NH_ALL,
  CMD_TLBI_NH_ASID,
  CMD_TLBI_NH_VA,
  CMD_TLBI_NH_VAA,
  CMD_TLBI_NSNH_ALL,
  commandOf,
  opcodeOf,
  STE,
  type Words,
} from '../../../spec/index.ts';
import type { Operation, OperationResult } from '../operation.ts';
import { commandWords } from '../operations/guest-command.ts';
import type { Monitor, Property, Violation, Watched } from '../property.ts';
import { forEachTranslatingSte } from '../stes.ts';
import { mayRefuse } from './no-ats.ts';
import { GUEST_QUEUE, watching } from './watching.ts';

const RULE = 'guest-commands';

/** Commands with a VMID and no StreamID. */
const BY_VMID: ReadonlySet<number> = new Set([
  CMD_TLBI_NH_ALL.opcode,
  CMD_TLBI_NH_ASID.opcode,
  CMD_TLBI_NH_VA.opcode,
  CMD_TLBI_NH_VAA.opcode,
]);

/** Commands with a StreamID. */
const BY_STREAM: ReadonlySet<number> = new Set([CMD_CFGI_CD.opcode, CMD_CFGI_CD_ALL.opcode, CMD_ATC_INV.opcode]);

interface Vdevice {
  readonly dev: string;
  readonly viommu: string;
  readonly vsid: number;
}

interface Viommu {
  readonly smmu: string;
  readonly parent: string;
  /** VMID seen in an STE under it; 0: none yet. */
  vmid: number;
}

/** A command as it left a queue. */
interface Seen {
  readonly smmu: string;
  readonly words: Words;
}

/** What a VM's command must have become; null: no vDEVICE has its vSID, or a VM may not send it. */
type Wanted = readonly Words[] | null;

const text = (words: Words): string => {
  const name = commandOf(words)?.name ?? `opcode 0x${opcodeOf(words).toString(16)}`;
  const vmid = BY_VMID.has(opcodeOf(words)) ? ` VMID ${CMD_TLBI_NH_ALL.num(words, 'VMID')}` : '';
  const sid = BY_STREAM.has(opcodeOf(words)) ? ` StreamID 0x${CMD_CFGI_CD.num(words, 'StreamID').toString(16)}` : '';
  return `${name}${vmid}${sid}`;
};

const equal = (a: Words, b: Words): boolean => a.every((word, i) => word === b[i]);

class GuestCommands implements Monitor {
  readonly #watched: Watched;
  readonly #vdevices = new Map<string, Vdevice>();
  readonly #viommus = new Map<string, Viommu>();
  /** vIOMMU of each nested HWPT that translates or bypasses. */
  readonly #nested = new Map<string, string>();
  /** vIOMMU under which each device is attached. */
  readonly #attached = new Map<string, string>();
  #seen: Seen[] = [];
  #unwatch: (() => void) | null = null;
  /** The operation before was a planned failure. */
  #failing = false;
  /** A CMD_SYNC was lost: commands of earlier calls may come late. */
  #late = false;

  constructor(watched: Watched) {
    this.#watched = watched;
  }

  before({ op }: Operation): void {
    if (op !== 'invalidate') return;
    this.#seen = [];
    this.#unwatch = watching(this.#watched.lab.machine.watch, (act) => {
      // A VM's own queues go on meanwhile.
      if (act.kind === 'command' && !GUEST_QUEUE.test(act.queue))
        this.#seen.push({ smmu: act.smmu, words: act.words.slice() });
    });
  }

  after(o: Operation, result: OperationResult): Violation | null {
    this.#unwatch?.();
    this.#unwatch = null;
    const failing = this.#failing;
    this.#failing = o.op === 'fail';
    if (o.op === 'fail' && o.point.startsWith('poll:')) this.#late = true;
    if (o.op === 'invalidate') {
      const message = this.#invalidate(o, result, failing);
      return message === null ? null : { rule: RULE, message };
    }
    // Also one that failed halfway.
    if (o.op === 'smmuUnplug') this.#unplugged(o.smmu);
    if (result.status === 'ok') this.#apply(o);
    return null;
  }

  /** Keeps the books of what was granted. */
  #apply(o: Operation): void {
    const { lab } = this.#watched;
    switch (o.op) {
      case 'viommuAlloc':
        this.#viommus.set(o.as, { smmu: lab.device(o.dev).smmu, parent: o.parent, vmid: 0 });
        return;
      case 'vdeviceAlloc':
        this.#vdevices.set(o.as, { dev: o.dev, viommu: o.viommu, vsid: o.vsid });
        return;
      case 'nestedAlloc':
        if (this.#viommus.has(o.on) && o.vste !== 'abort') this.#nested.set(o.as, o.on);
        return;
      case 'attach': {
        const viommu = this.#nested.get(o.to);
        if (viommu === undefined) this.#attached.delete(o.dev);
        else this.#attached.set(o.dev, viommu);
        this.#learn(viommu);
        return;
      }
      case 'detach':
        this.#attached.delete(o.dev);
        return;
      case 'unbind':
        this.#unbound(o.dev);
        return;
      case 'kexec':
        for (const known of [this.#viommus, this.#vdevices, this.#nested, this.#attached]) known.clear();
        return;
      case 'destroy':
        this.#viommus.delete(o.name);
        this.#vdevices.delete(o.name);
        this.#nested.delete(o.name);
        return;
      default:
    }
  }

  /** Its vDEVICE goes with a device. */
  #unbound(dev: string): void {
    this.#attached.delete(dev);
    for (const [name, one] of [...this.#vdevices]) if (one.dev === dev) this.#vdevices.delete(name);
  }

  #unplugged(smmu: string): void {
    for (const one of this.#watched.lab.devices) if (one.smmu === smmu && !one.vfio.bound) this.#unbound(one.name);
  }

  /** The VMID that streams attached under a vIOMMU carry. */
  #learn(name: string | undefined): void {
    const viommu = this.#viommus.get(name ?? '');
    if (viommu === undefined) return;
    for (const [sid, vmid] of this.#vmids(viommu.smmu))
      if (this.#viommuOf(viommu.smmu, sid) === name) viommu.vmid = vmid;
  }

  /** S2VMID of each translating stream of an SMMU. */
  #vmids(name: string): Map<number, number> {
    const { memory, smmus } = this.#watched.lab.machine;
    const smmu = smmus.find((one) => one.name === name);
    const vmids = new Map<number, number>();
    if (smmu !== undefined)
      forEachTranslatingSte(memory, smmu, (sid, ste) => void vmids.set(sid, STE.num(ste, 'S2VMID')));
    return vmids;
  }

  #viommuOf(smmu: string, sid: number): string | undefined {
    const dev = this.#watched.lab.devices.find((one) => one.smmu === smmu && one.endpoint.streamIds.includes(sid));
    return this.#attached.get(dev?.name ?? '');
  }

  #invalidate(o: Extract<Operation, { op: 'invalidate' }>, result: OperationResult, failing: boolean): string | null {
    const viommu = this.#viommus.get(o.on);
    // An SMMU that is off gets no commands: what they are about is invalidated before it is on again.
    if (viommu === undefined || this.#watched.model.offOf(viommu.smmu) !== undefined) return null;
    const wanted = o.commands.map((command) => this.#wanted(o.on, commandWords(command)));
    const bad = wanted.indexOf(null);
    const first = o.commands[bad];
    if (first !== undefined && result.status === 'ok')
      return `${o.on} has sent ${text(commandWords(first))}, which it may not or whose vSID it has not, and no error came back`;
    if (
      bad < 0 &&
      result.status === 'error' &&
      !failing &&
      result.errno !== 'ENODEV' &&
      !mayRefuse(this.#watched.lab, o.commands)
    )
      return `${o.on} has sent ${o.commands.map((one) => text(commandWords(one))).join(', ')}: ${result.errno} came back (${result.why})`;
    const all = wanted.flatMap((words) => words ?? []);
    const stray = this.#late ? undefined : this.#stray(viommu, all);
    if (stray !== undefined)
      return `${o.on} sends commands, and ${stray.smmu} gets ${text(stray.words)}: that is no command of its own`;
    if (result.status === 'ok') return this.#missing(o.on, viommu, all);
    return result.status === 'error' ? this.#counted(o.on, viommu, wanted, result.entries) : null;
  }

  /** What a command must become. The VMID field is filled in where it is known. */
  #wanted(on: string, given: Words): Wanted {
    const opcode = opcodeOf(given);
    if (opcode === CMD_TLBI_NSNH_ALL.opcode) return [this.#tagged(on, CMD_TLBI_NH_ALL.encode({}))];
    if (BY_VMID.has(opcode)) return [this.#tagged(on, given)];
    if (!BY_STREAM.has(opcode)) return null;
    const vsid = CMD_CFGI_CD.num(given, 'StreamID');
    const vdevice = [...this.#vdevices.values()].find((one) => one.viommu === on && one.vsid === vsid);
    if (vdevice === undefined) return null;
    return this.#watched.lab.device(vdevice.dev).endpoint.streamIds.map((sid) => {
      const words = given.slice();
      CMD_CFGI_CD.set(words, 'StreamID', sid);
      return words;
    });
  }

  #tagged(on: string, given: Words): Words {
    const words = given.slice();
    CMD_TLBI_NH_ALL.set(words, 'VMID', this.#viommus.get(on)?.vmid ?? 0);
    return words;
  }

  /** Whether a command is the one that was wanted. While no stream carries the VMID, any but a stranger's will do. */
  #same(viommu: Viommu, seen: Words, wanted: Words): boolean {
    if (viommu.vmid !== 0 || !BY_VMID.has(opcodeOf(wanted))) return equal(seen, wanted);
    const words = seen.slice();
    CMD_TLBI_NH_ALL.set(words, 'VMID', 0);
    return equal(words, wanted) && !this.#strangers(viommu).has(CMD_TLBI_NH_ALL.num(seen, 'VMID'));
  }

  /** VMIDs of streams that are attached under a vIOMMU of another S2. */
  #strangers(viommu: Viommu): Set<number> {
    const out = new Set<number>();
    for (const [sid, vmid] of this.#vmids(viommu.smmu)) {
      const other = this.#viommus.get(this.#viommuOf(viommu.smmu, sid) ?? '');
      if (other !== undefined && other.parent !== viommu.parent) out.add(vmid);
    }
    return out;
  }

  /** An invalidation that the VM has not asked for. */
  #stray(viommu: Viommu, wanted: readonly Words[]): Seen | undefined {
    return this.#seen.find(
      ({ smmu, words }) =>
        (BY_VMID.has(opcodeOf(words)) ||
          BY_STREAM.has(opcodeOf(words)) ||
          opcodeOf(words) === CMD_TLBI_NSNH_ALL.opcode) &&
        !(smmu === viommu.smmu && wanted.some((one) => this.#same(viommu, words, one))),
    );
  }

  /** entry_num of a call that failed: commands that it counts were sent (uapi: "number of entries handled"). */
  #counted(on: string, viommu: Viommu, wanted: readonly Wanted[], entries: number | undefined): string | null {
    if (entries === undefined || entries === wanted.length || this.#watched.lab.config.entryNum !== 'uapi') return null;
    const counted = wanted.slice(0, entries).flatMap((words) => words ?? []);
    let sent = 0;
    for (const { smmu, words } of this.#seen) {
      const want = counted[sent];
      if (smmu === viommu.smmu && want !== undefined && this.#same(viommu, words, want)) sent++;
    }
    if (sent === counted.length) return null;
    return `entry_num says that ${entries} commands of ${on} were handled; ${sent} were sent`;
  }

  /** A command of the VM that was not sent, or whose completion nobody waited for. */
  #missing(on: string, viommu: Viommu, wanted: readonly Words[]): string | null {
    let next = 0;
    let synced = false;
    for (const { smmu, words } of this.#seen) {
      if (smmu !== viommu.smmu) continue;
      if (opcodeOf(words) === CMD_SYNC.opcode) synced = next === wanted.length;
      const want = wanted[next];
      if (want !== undefined && this.#same(viommu, words, want)) next++;
    }
    const missing = wanted[next];
    if (missing !== undefined)
      return `${on} has sent ${text(missing)} (as the SMMU should get it): the call returned without it`;
    return synced ? null : `the commands of ${on} have not completed (CMD_SYNC) when the call returns`;
  }
}

/** See the module comment. */
export const guestCommands: Property = {
  name: RULE,
  title: "a VM's invalidations reach its own VMID and streams, all of them and no others",
  foreign: true,
  monitor: (watched) => new GuestCommands(watched),
};
