/**
 * A VM's command queues are its own: what they execute carries the VMID of its VINTF, which is that of its streams, and
 * StreamIDs of its vDEVICEs; nothing else is executed. A VINTF is on exactly while its vIOMMU lives, has a StreamID pair
 * for each vDEVICE and an LVCMDQ for each HW_QUEUE, and nothing of either is taken away while page 0 shows it or a queue
 * needs it. A queue begins clean, in the memory of its own VM, and no longer than was asked for.
 */
import {
  CMD_ATC_INV,
  CMD_SYNC,
  CMD_TLBI_NH_ASID,
  CMD_TLBI_NH_VA,
  CMDQV_PAGE_BYTES,
  COMMAND_BYTES,
  commandOf,
  opcodeOf,
  STE,
  VCMDQ_BASE,
  VINTF_CONFIG,
  vintfPage0,
} from '../../../spec/index.ts';
import { slotValue } from '../../../spec/layout.ts';
import { s2Enabled } from '../../../spec/stream-world.ts';
import type { Announcement, CommandAct } from '../../hw/observer.ts';
import type { Vintf } from '../../hw/tegra241/vintf.ts';
import type { IommufdContext } from '../../iommufd/index.ts';
import type { Operation, OperationResult } from '../operations.ts';
import type { Monitor, Property, Violation, Watched } from '../property.ts';
import { steAddress } from '../stes.ts';
import { GUEST_QUEUE, watching } from './watching.ts';

const RULE = 'vcmdq-confined';

/** VINTF of the host. */
const HOST = 0;
const PAGE = 4096;
/** Shortest queue: ADDR of BASE cannot say more. */
const LEAST_BYTES = 2 ** (VCMDQ_BASE.field('ADDR').address ?? 0);
const LOG2SIZE = VCMDQ_BASE.slot('LOG2SIZE');

type Of<N extends Operation['op']> = Extract<Operation, { readonly op: N }>;

/** A vIOMMU with a VINTF. */
interface Viommu {
  readonly smmu: string;
  readonly vintf: number;
  readonly ioas: string | undefined;
  /** The open /dev/iommu that it is of. */
  readonly ctx: IommufdContext | undefined;
}

/** A HW_QUEUE. */
interface Queue extends Pick<Of<'hwQueueAlloc'>, 'viommu' | 'index' | 'page' | 'bytes'> {
  readonly offset: number;
  readonly owner: Viommu;
}

interface Vdevice {
  readonly dev: string;
  readonly viommu: string;
  readonly vsid: number;
}

class VcmdqConfined implements Monitor {
  readonly #watched: Watched;
  readonly #any: boolean;
  #broken: string | null = null;
  /** The VINTF of a VM that the operation under way has switched on. */
  #opened: { readonly smmu: string; readonly vintf: number } | null = null;
  readonly #ioasOf = new Map<string, string>();
  readonly #viommus = new Map<string, Viommu>();
  readonly #vdevices = new Map<string, Vdevice>();
  readonly #queues = new Map<string, Queue>();
  /** vIOMMU of a nested HWPT; HWPT of a device. */
  readonly #nested = new Map<string, string>();
  readonly #attached = new Map<string, string>();
  /** SMMUs that are suspended or unplugged: what they hold is of no account. */
  readonly #off = new Set<string>();

  constructor(watched: Watched) {
    this.#watched = watched;
    const { machine } = watched.lab;
    this.#any = machine.cmdqvs.size > 0;
    if (!this.#any) return;
    watching(machine.watch, (act) => this.#observe(act));
  }

  #break(message: string): void {
    this.#broken ??= message;
  }

  #observe(act: Announcement): void {
    if (act.kind === 'vintf') {
      if (!act.enabled || act.vintf === HOST) return;
      this.#opened = { smmu: act.smmu, vintf: act.vintf };
      if (act.HYP_OWN)
        this.#break(`${act.smmu}: VINTF ${act.vintf}, a VM's, is the hypervisor's own: nothing confines it`);
    } else if (act.kind === 'command') this.#executed(act);
  }

  /** A queue has executed a command. */
  #executed({ smmu, queue, words, fetched }: CommandAct): void {
    // Most commands are those of the Command queue: no need to take its name apart.
    if (!queue.startsWith('vcmdq')) return;
    const [, v] = GUEST_QUEUE.exec(queue) ?? [];
    if (v === undefined) return;
    const owner = [...this.#viommus].find(([, one]) => one.smmu === smmu && one.vintf === Number(v));
    const what = `${smmu}: ${queue} has executed ${commandOf(words)?.name ?? 'an unknown command'}`;
    const opcode = opcodeOf(words);
    if (owner === undefined) this.#break(`${what}, and no vIOMMU has VINTF ${v}`);
    else if (opcode === CMD_TLBI_NH_ASID.opcode || opcode === CMD_TLBI_NH_VA.opcode)
      this.#tlbi(CMD_TLBI_NH_ASID.num(words, 'VMID'), smmu, owner[0], what);
    else if (opcode === CMD_ATC_INV.opcode) {
      const sid = CMD_ATC_INV.num(words, 'StreamID');
      const vsid = CMD_ATC_INV.num(fetched ?? words, 'StreamID');
      if (!this.#pairs(owner[0]).some(([virt, physical]) => virt === vsid && physical === sid))
        this.#break(`${what} for StreamID ${sid}, given vSID ${vsid}; ${owner[0]} has no such vDEVICE`);
    } else if (opcode !== CMD_SYNC.opcode) this.#break(`${what}, which no VM may send`);
  }

  #tlbi(vmid: number, smmu: string, viommu: string, what: string): void {
    const { ledger } = this.#watched.lab;
    if (ledger.heard && ledger.ownersOf(smmu, vmid).size === 0) this.#break(`${what} with VMID ${vmid}, which is free`);
    const other = this.#otherVmid(viommu, vmid);
    if (other !== null) this.#break(`${what} with VMID ${vmid}; ${other}`);
  }

  /** A stream of a vIOMMU that has another VMID; null: there is none. */
  #otherVmid(viommu: string, vmid: number): string | null {
    const { lab } = this.#watched;
    for (const { name, smmu, sid } of lab.devices) {
      if (this.#nested.get(this.#attached.get(name) ?? '') !== viommu) continue;
      const { memory } = lab.machine;
      const at = steAddress(memory, lab.machine.smmu(smmu), sid);
      if (at === undefined) continue;
      const bytes = memory.readBytes(at, STE.bytes);
      const ste = new Uint32Array(bytes.buffer, bytes.byteOffset, STE.bytes / 4);
      const other = STE.num(ste, 'S2VMID');
      if (s2Enabled(ste) && other !== vmid) return `${name}, a device of ${viommu}, has VMID ${other}`;
    }
    return null;
  }

  /** [vSID, StreamID] of the vDEVICEs of a vIOMMU. */
  #pairs(viommu: string): [number, number][] {
    const { devices } = this.#watched.lab;
    return [...this.#vdevices.values()]
      .filter((one) => one.viommu === viommu)
      .map(({ dev, vsid }) => [vsid, devices.find(({ name }) => name === dev)?.sid ?? -1]);
  }

  before(): void {
    this.#opened = null;
  }

  after(o: Operation, result: OperationResult): Violation | null {
    if (!this.#any) return null;
    // Also one that failed halfway.
    if (o.op === 'smmuUnplug') this.#unplugged(o.smmu);
    const wrong = result.status === 'ok' ? this.#done(o) : null;
    this.#broken ??= wrong ?? this.#state();
    return this.#broken === null ? null : { rule: RULE, message: this.#broken };
  }

  /** Takes note of what was done. @returns why it should not have been, or null */
  #done(o: Operation): string | null {
    switch (o.op) {
      case 'hwptAlloc':
        this.#ioasOf.set(o.as, o.ioas);
        return null;
      case 'viommuAlloc':
        return this.#viommuAlloc(o);
      case 'vdeviceAlloc':
        if (this.#viommus.has(o.viommu)) this.#vdevices.set(o.as, { dev: o.dev, viommu: o.viommu, vsid: o.vsid });
        return null;
      case 'nestedAlloc':
        this.#nested.set(o.as, o.on);
        return null;
      case 'attach':
        this.#attached.set(o.dev, o.to);
        return null;
      case 'detach':
        this.#attached.delete(o.dev);
        return null;
      case 'unbind':
        this.#unbound(o.dev);
        return null;
      case 'mmap':
        return this.#mmap(o);
      case 'hwQueueAlloc':
        return this.#hwQueueAlloc(o);
      case 'unmap':
        return this.#unmap(o);
      case 'destroy':
        return this.#destroy(o.name);
      case 'smmuSuspend':
      case 'smmuUnplug':
        this.#off.add(o.smmu);
        return null;
      case 'smmuResume':
      case 'smmuReset':
        this.#off.delete(o.smmu);
        return null;
      case 'kexec':
        this.#forget();
        this.#off.clear();
        return null;
      default:
        return null;
    }
  }

  #viommuAlloc(o: Of<'viommuAlloc'>): string | null {
    if (o.type !== 'tegra241-cmdqv') return null;
    if (this.#opened === null) return `${o.as} was allocated, and no VINTF was switched on for it`;
    const ctx = this.#watched.lab.handle(o.as)?.ctx;
    this.#viommus.set(o.as, { ...this.#opened, ioas: this.#ioasOf.get(o.parent), ctx });
    return null;
  }

  /** Its vDEVICE goes with a device. */
  #unbound(dev: string): void {
    this.#attached.delete(dev);
    for (const [name, one] of this.#vdevices) if (one.dev === dev) this.#vdevices.delete(name);
  }

  #unplugged(smmu: string): void {
    for (const one of this.#watched.lab.devices) if (one.smmu === smmu && !one.vfio.bound) this.#unbound(one.name);
  }

  /** Physical address of page 0 of the VINTF of a vIOMMU. */
  #page0({ smmu, vintf }: Viommu): bigint {
    const { smmus } = this.#watched.lab.machine.firmware;
    return (smmus.find(({ name }) => name === smmu)?.cmdqv?.base ?? 0n) + BigInt(vintfPage0(vintf));
  }

  /**
   * What a VM has before it is page 0 of its VINTF and nothing else. The offset of a vIOMMU that is gone may be given out
   * again in the same file: then page 0 of whoever has it now.
   */
  #mmap({ as, viommu }: Of<'mmap'>): string | null {
    const { windows } = this.#watched.lab;
    const vma = windows.get(as)?.vma;
    if (vma === undefined) return null;
    const named = this.#viommus.get(viommu);
    const ctx = windows.offerOf(viommu)?.ctx;
    const may = named === undefined ? [...this.#viommus.values()].filter((one) => one.ctx === ctx) : [named];
    if (may.some((one) => vma.pa === this.#page0(one)) && vma.length === BigInt(CMDQV_PAGE_BYTES)) return null;
    const wanted = named === undefined ? "any vIOMMU's VINTF" : `VINTF ${named.vintf}`;
    return `${as} shows ${hex(vma.length)} bytes from ${hex(vma.pa)} on: not page 0 of ${wanted}`;
  }

  #hwQueueAlloc(o: Of<'hwQueueAlloc'>): string | null {
    const owner = this.#viommus.get(o.viommu);
    if (owner === undefined) return `hwQueueAlloc succeeded on ${o.viommu}, which has no VINTF`;
    const queue: Queue = { ...o, offset: o.offset ?? 0, owner };
    const wrong = this.#refusal(queue);
    if (wrong !== null) return `${o.as} was allocated ${wrong}: it has to be refused`;
    this.#queues.set(o.as, queue);
    return this.#stale(queue)?.replace(/^/, `${o.as}, just allocated, `) ?? null;
  }

  /** Why a queue cannot be, or null. */
  #refusal({ owner, viommu, index, bytes, page, offset }: Queue): string | null {
    const { counts } = this.#watched.lab.machine.cmdqv(owner.smmu);
    const has = (l: number): boolean =>
      [...this.#queues.values()].some((one) => one.viommu === viommu && one.index === l);
    const { CMDQS } = this.#watched.lab.machine.smmu(owner.smmu).caps;
    if (index >= counts.lvcmdqs) return `as LVCMDQ ${index} of ${counts.lvcmdqs}`;
    if (has(index)) return `as LVCMDQ ${index}, which there is`;
    if (index > 0 && !has(index - 1)) return `as LVCMDQ ${index} without LVCMDQ ${index - 1}`;
    if (bytes < LEAST_BYTES || (bytes & (bytes - 1)) !== 0 || bytes > COMMAND_BYTES * 2 ** CMDQS)
      return `with ${bytes} bytes`;
    return (page * PAGE + offset) % bytes === 0 ? null : `at an address that is not a multiple of ${bytes}`;
  }

  /** How a queue that nobody has touched yet differs from a clean one, or null. */
  #stale({ owner, index, bytes, offset }: Queue): string | null {
    const { lab } = this.#watched;
    const queue = lab.machine.cmdqv(owner.smmu).vintfs[owner.vintf]?.slots.get(index);
    if (queue === undefined) return 'is mapped to no VCMDQ';
    const { base, prodCell, consCell } = queue.ring;
    const words = Uint32Array.of(base.lo, base.hi);
    const size = COMMAND_BYTES * 2 ** slotValue(words, LOG2SIZE);
    const address = ((BigInt(base.hi >>> 0) << 32n) | BigInt(base.lo >>> 0)) & ~(BigInt(LEAST_BYTES) - 1n);
    if (queue.enabled) return 'is enabled';
    if ((prodCell.lo | consCell.lo) !== 0) return `has PROD ${prodCell.lo} and CONS ${consCell.lo}`;
    if (queue.errors !== 0) return `has errors ${queue.errors}`;
    if (size !== bytes) return `has ${size} bytes in hardware, ${bytes} were given`;
    const own = lab.guests.filter((one) => owner.ioas === undefined || owner.ioas === `a${one.index}`);
    const home = (own.length > 0 ? own : lab.guests).some(
      (one) => one.holdsPa(address) && one.holdsPa(address + BigInt(bytes - 1)),
    );
    if (home && Number(address % BigInt(PAGE)) === offset) return null;
    return `fetches from ${hex(address)}, which is not where its VM's queue lies`;
  }

  /** Memory that a queue fetches from stays mapped. */
  #unmap({ ioas, page, pages }: Of<'unmap'>): string | null {
    for (const [name, queue] of this.#queues) {
      const last = queue.page + Math.floor((queue.offset + queue.bytes - 1) / PAGE);
      if (queue.owner.ioas === ioas && page <= last && page + pages > queue.page)
        return `${ioas} was unmapped at page ${page}, where ${name} fetches its commands`;
    }
    return null;
  }

  #destroy(name: string): string | null {
    const wrong = this.#needed(name);
    for (const map of [this.#queues, this.#viommus, this.#vdevices, this.#nested, this.#ioasOf]) map.delete(name);
    return wrong?.replace(/^/, `${name} was destroyed `) ?? null;
  }

  /** What still needs an object, or null. */
  #needed(name: string): string | null {
    const queue = this.#queues.get(name);
    for (const [above, { viommu, index }] of this.#queues)
      if (viommu === queue?.viommu && index === queue.index + 1) return `before ${above}, the next LVCMDQ`;
    const gone = this.#viommus.get(name);
    if (gone === undefined) return null;
    for (const [window, { vma }] of this.#watched.lab.windows.all)
      if (vma.pa === this.#page0(gone)) return `while ${window} shows page 0 of its VINTF`;
    const parts = [...this.#queues, ...this.#vdevices].find(([, { viommu }]) => viommu === name);
    return parts === undefined ? null : `with its ${parts[0]}`;
  }

  /** What hardware has of VMs now is what they were given; what is not, or null. */
  #state(): string | null {
    for (const [smmu, cmdqv] of this.#watched.lab.machine.cmdqvs)
      for (const vintf of cmdqv.vintfs) {
        if (vintf.index === HOST || this.#off.has(smmu)) continue;
        const owner = [...this.#viommus].find(([, one]) => one.smmu === smmu && one.vintf === vintf.index)?.[0];
        const wrong = owner === undefined ? unowned(vintf) : this.#owned(vintf, owner);
        if (wrong !== null) return `${smmu}: VINTF ${vintf.index} ${wrong}`;
      }
    return null;
  }

  /** Nobody has anything any more. */
  #forget(): void {
    for (const map of [this.#queues, this.#viommus, this.#vdevices, this.#nested, this.#attached]) map.clear();
  }

  /** What is wrong with the VINTF of a vIOMMU, or null. */
  #owned(vintf: Vintf, owner: string): string | null {
    if (!isOn(vintf)) return `is off, and ${owner} lives`;
    const wanted = pairsText(this.#pairs(owner));
    const pairs = pairsText(vintf.pairs());
    if (pairs !== wanted) return `has the StreamID pairs ${pairs || 'none'}; ${owner} has ${wanted || 'none'}`;
    const queues = [...this.#queues.values()].filter(({ viommu }) => viommu === owner).map(({ index }) => index);
    const slots = [...vintf.slots.keys()];
    if (listText(slots) !== listText(queues))
      return `has the LVCMDQs ${listText(slots) || 'none'}; ${owner} has ${listText(queues) || 'none'}`;
    return null;
  }

  atEnd(): Violation | null {
    if (!this.#any) return null;
    this.#forget();
    this.#broken ??= this.#state();
    return this.#broken === null ? null : { rule: RULE, message: `after close ${this.#broken}` };
  }
}

const isOn = (vintf: Vintf): boolean => ((vintf.read(VINTF_CONFIG.offset) ?? 0) & VINTF_CONFIG.bit('EN')) !== 0;

/** What a VINTF that nobody has must not have, or null. */
function unowned(vintf: Vintf): string | null {
  if (isOn(vintf)) return `is enabled with VMID ${vintf.VMID}, and no vIOMMU has it`;
  if (vintf.pairs().length > 0) return `has the StreamID pairs ${pairsText(vintf.pairs())}, and no vIOMMU has it`;
  return vintf.slots.size > 0 ? `has the LVCMDQs ${listText([...vintf.slots.keys()])}, and no vIOMMU has it` : null;
}

const pairsText = (pairs: readonly (readonly [number, number])[]): string =>
  pairs
    .map(([virt, physical]) => `0x${virt.toString(16)}:0x${physical.toString(16)}`)
    .sort()
    .join(' ');

const hex = (value: bigint): string => `0x${value.toString(16)}`;

const listText = (list: readonly number[]): string => [...list].sort((a, b) => a - b).join(' ');

/** See the module comment. */
export const vcmdqConfined: Property = {
  name: 'vcmdq-confined',
  title: "a VM's VINTF and VCMDQs have what it was given, begin clean, and reach its own VMID and devices only",
  foreign: true,
  monitor: (watched) => new VcmdqConfined(watched),
};
