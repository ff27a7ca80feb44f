/**
 * A device that is bound to a process reaches with the PASID of the process what the process maps now, and nothing else;
 * as long as it has a bond. A further bind of the two is one more user of the same bond, so that it lives until the last
 * unbind. An address space that has ended is reached by nobody, and a PASID means one address space for all devices.
 */
import type { SvaHandle } from '../../driver/iommu/sva.ts';
import { FIRST_DATA_PAGE, GUEST_PAGES } from '../guest.ts';
import type { DmaOutcome, Operation, OperationResult } from '../operation.ts';
import type { Process } from '../process.ts';
import type { Monitor, Property, Violation, Watched } from '../property.ts';
import { watching } from './watching.ts';

const RULE = 'sva-shared';

type Dma = Extract<Operation, { op: 'dma' }>;

/** A bind that has not been undone. */
interface Bind {
  readonly dev: string;
  readonly process: Process;
  readonly pasid: number;
}

class SvaShared implements Monitor {
  readonly #watched: Watched;
  readonly #binds = new Map<string, Bind>();
  /** Where each page of a process leads; absent: the address space has ended. */
  readonly #maps = new Map<Process, Map<number, number>>();
  readonly #ended = new Set<Process>();
  /** What the next operation does may fail. */
  #armed = false;
  /** A device does not answer invalidations: what becomes of it is the driver's affair. */
  #unsure = false;
  /** The process that an mmExec under way ends. */
  #ending: Process | null = null;
  #reached: bigint[] = [];
  #unwatch: (() => void) | null = null;

  constructor(watched: Watched) {
    this.#watched = watched;
  }

  before(o: Operation): void {
    const { lab } = this.#watched;
    if (o.op === 'mmExec') this.#ending = lab.processes.process(o.mm);
    if (o.op !== 'dma' || o.pasid === undefined || lab.config.processes === undefined) return;
    this.#reached = [];
    this.#unwatch = watching(lab.machine.watch, (act) => {
      if (act.kind === 'dma' && !act.aborted && act.endpoint === o.dev)
        this.#reached.push((BigInt(act.paHi >>> 0) << 32n) | BigInt(act.paLo >>> 0));
    });
  }

  after(o: Operation, result: OperationResult): Violation | null {
    this.#unwatch?.();
    this.#unwatch = null;
    const armed = this.#armed;
    this.#armed = o.op === 'fail';
    const broken = this.#after(o, result, armed);
    return broken === null ? null : { rule: RULE, message: broken };
  }

  #after(o: Operation, result: OperationResult, armed: boolean): string | null {
    const { lab } = this.#watched;
    if (o.op === 'atcHang' || (o.op === 'fail' && o.point.startsWith('poll:'))) this.#unsure = true;
    if (o.op === 'svaBind') return this.#bind(o, result, armed);
    if (result.status !== 'ok') return null;
    switch (o.op) {
      case 'svaUnbind':
        this.#binds.delete(o.name);
        return null;
      case 'mmMap': {
        const map = this.#mapOf(lab.processes.process(o.mm));
        if (o.to === null) map.delete(o.page);
        else map.set(o.page, o.to);
        return null;
      }
      case 'mmExec':
        if (this.#ending !== null) this.#ended.add(this.#ending);
        return null;
      case 'smmuUnplug':
        for (const [name, { dev }] of this.#binds) if (lab.device(dev).smmu === o.smmu) this.#binds.delete(name);
        return null;
      case 'kexec':
        this.#binds.clear();
        return null;
      case 'dma':
        return o.pasid === undefined || lab.device(o.dev).vfio.bound ? null : this.#dma(o, o.pasid, result.dma);
      default:
        return null;
    }
  }

  #mapOf(process: Process): Map<number, number> {
    const known = this.#maps.get(process);
    if (known !== undefined) return known;
    const pages = Array.from({ length: GUEST_PAGES - FIRST_DATA_PAGE }, (_, i) => FIRST_DATA_PAGE + i);
    const made = new Map(pages.map((page) => [page, page]));
    this.#maps.set(process, made);
    return made;
  }

  #bind(o: Extract<Operation, { op: 'svaBind' }>, result: OperationResult, armed: boolean): string | null {
    const { lab } = this.#watched;
    const process = lab.processes.process(o.mm);
    const shared = [...this.#binds.values()].find((one) => one.dev === o.dev && one.process === process);
    if (result.status === 'error')
      return shared === undefined || armed
        ? null
        : `a further bind of ${o.dev} to ${o.mm} failed with ${result.errno}; they have a bond`;
    const bond: SvaHandle | undefined = result.status === 'ok' ? lab.processes.bond(o.as) : undefined;
    if (bond === undefined) return null;
    const { pasid } = bond;
    const other = [...this.#binds.values()].find((one) => (one.process === process) !== (one.pasid === pasid));
    this.#binds.set(o.as, { dev: o.dev, process, pasid });
    if (other === undefined) return null;
    return `${o.dev} has PASID ${pasid} of ${o.mm}; ${other.dev} has PASID ${other.pasid} of ${other.process === process ? 'the same' : 'another'} address space`;
  }

  #dma(o: Dma, pasid: number, dma: DmaOutcome | undefined): string | null {
    const { lab, model } = this.#watched;
    const { smmu } = lab.device(o.dev);
    // An SMMU that has lost its registers lets pass what GBPA says.
    if (model.offOf(smmu) === 'lost') return null;
    const bind = [...this.#binds.values()].find((one) => one.dev === o.dev && one.pasid === pasid);
    const process = bind === undefined || this.#ended.has(bind.process) ? null : bind.process;
    const to = process === null ? undefined : this.#mapOf(process).get(o.page);
    const wanted = process === null || to === undefined ? null : process.pageAt(to);
    const what = `the access of ${o.dev} to page ${o.page} with PASID ${pasid}`;
    const strayed = this.#reached.find((pa) => wanted === null || pa < wanted || pa >= wanted + 4096n);
    if (strayed !== undefined)
      return `${what} reached 0x${strayed.toString(16)}; ${wanted === null ? 'it has nothing there' : `the process has page ${to} there, at 0x${wanted.toString(16)}`}`;
    const blocked = model.inReset(o.dev) || model.offOf(smmu) !== undefined || this.#unsure;
    if (wanted === null || blocked || dma?.status === 'ok') return null;
    return `${what} gave ${dma?.status ?? 'nothing'}; the process has page ${to} there`;
  }
}

/** See the module comment. */
export const svaShared: Property = {
  name: 'sva-shared',
  title: 'a device reaches by the PASID of a process what the process maps now, from its first bind to its last unbind',
  foreign: true,
  monitor: (watched) => new SvaShared(watched),
};
