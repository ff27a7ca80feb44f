/**
 * DMA reaches only what is mapped now: pages of the VM whose IO address space the device is attached to, and of those
 * only the ones that IOAS maps at this moment. Once an unmap has returned no TLB entry of any VMID of that S2, and no
 * device's own cache, translates the range; once a detach has returned the device reaches nothing, nor does a transaction
 * of its that had stalled; and nothing is written that is mapped for reading only. A guest's own tables may be stale; what stage 2 takes away may not. Where no guest table is in
 * between, DMA must also work.
 *
 * What is reached is what the device's accesses to memory say, whatever lies there. RAM is reached through the caches: what
 * is mapped as write-back memory is accessed so, also where a guest's stage 1 is in between (S2FWB).
 */
import { Access, Outcome, type Transaction } from '../../hw/transaction.ts';
import { Mappings } from '../mappings.ts';
import type { OkResult, Operation, OperationResult } from '../operation.ts';
import type { Monitor, Property, Violation, Watched } from '../property.ts';
import { watching } from './watching.ts';

const RULE = 'dma-contained';

const PAGE_SHIFT = 12n;

/** Normal memory, inner and outer write-back (STE.MemAttr): so all RAM is mapped, and every guest's MAIR says so. */
const WRITE_BACK = 15;

type Dma = Extract<Operation, { op: 'dma' }>;

/** An access to memory by a device. */
interface Reached {
  readonly dev: string;
  readonly pa: bigint;
  readonly isWrite: boolean;
}

class DmaContained implements Monitor {
  readonly #watched: Watched;
  readonly #mappings: Mappings;
  /** SMMUs behind which a device has not answered invalidations: who is cut off is then the driver's affair. */
  readonly #unsure = new Set<string>();
  /** A CMD_SYNC of the next operation is going to be lost. */
  #losing = false;
  /** One was lost, and commands before it may not have been consumed: caches may hold what was taken away. */
  #late = false;
  /** Where devices accessed memory during the operation under way. */
  #reached: Reached[] = [];
  /** Where stalled accesses could go before it. */
  #before = new Map<string, ReadonlySet<string | null>>();
  /** Memory type with which the DMA under way went out, if it is not Normal, write-back. */
  #type: number | null = null;
  #unwatch: (() => void) | null = null;

  constructor(watched: Watched) {
    this.#watched = watched;
    this.#mappings = new Mappings(watched.lab.guests.length);
  }

  before(o: Operation): void {
    const { lab } = this.#watched;
    this.#late &&= lab.machine.smmus.some(({ commandQueue: { ring, pending } }) => ring.used + pending.length > 0);
    const waiting = lab.stalled.filter(({ end }) => end === undefined);
    if (o.op !== 'dma' && waiting.length === 0) return;
    this.#before = new Map(waiting.map(({ dev }) => [dev, this.#spacesOfStalled(dev)]));
    this.#reached = [];
    this.#type = null;
    this.#unwatch = watching(lab.machine.watch, (act) => {
      if (act.kind === 'dma' && !act.aborted)
        this.#reached.push({
          dev: act.endpoint,
          pa: (BigInt(act.paHi >>> 0) << 32n) | BigInt(act.paLo >>> 0),
          isWrite: act.isWrite,
        });
      else if (act.kind === 'translation') this.#look(act.transaction);
    });
  }

  after(o: Operation, result: OperationResult): Violation | null {
    this.#unwatch?.();
    this.#unwatch = null;
    const reached = this.#reached;
    this.#reached = [];
    // A retry may come at any moment of the operation: it goes where one was mapped before, or is now.
    const astray = reached.filter((one) => this.#retriedTo(one) !== null);
    this.#mappings.apply(o, result);
    if (o.op === 'atcHang') this.#unsure.add(this.#watched.lab.device(o.dev).smmu);
    if (o.op === 'fail') this.#losing ||= o.point.startsWith('poll');
    else {
      this.#late ||= this.#losing;
      this.#losing = false;
    }
    if (this.#late) return null;
    if (o.op === 'forge' && result.status === 'ok') return this.#forged(o.dev, result);
    if (o.op === 'dma' && result.status === 'ok') return this.#dma(o, result, reached);
    return this.#retried(astray);
  }

  /** Nothing is granted to a device whose ATS is off, and its Translated transactions end (3.9.1, STE.EATS). */
  #forged(dev: string, { dma }: OkResult): Violation | null {
    if (dma?.status !== 'ok' || this.#watched.model.offOf(this.#watched.lab.device(dev).smmu) === 'lost') return null;
    return {
      rule: RULE,
      message: `${dev}, whose ATS is off, had a translation or a Translated transaction of its go through`,
    };
  }

  #look({ outcome, isSpeculative, access, memAttr }: Transaction): void {
    if (outcome === Outcome.Ok && !isSpeculative && access === Access.Untranslated && memAttr !== WRITE_BACK)
      this.#type = memAttr;
  }

  /** Spaces that the stalled accesses of a device may go to. */
  #spacesOfStalled(dev: string): Set<string | null> {
    const { lab, model } = this.#watched;
    return new Set(lab.stalled.filter((one) => one.dev === dev).map(({ pasid }) => model.ioasOf(dev, pasid)));
  }

  /** Accesses that had stalled and were sent again: to where their device is attached. */
  #retried(reached: readonly Reached[]): Violation | null {
    for (const one of reached) {
      const message = this.#retriedTo(one);
      if (message !== null) return { rule: RULE, message };
    }
    return null;
  }

  /** Why none of the spaces that an access which had stalled may go to maps what it reached; null: one does. */
  #retriedTo(one: Reached): string | null {
    const spaces = new Set([...(this.#before.get(one.dev) ?? []), ...this.#spacesOfStalled(one.dev)]);
    const broken = [...spaces].map((ioas) => this.#outside(one, ioas, `an access of ${one.dev} that had stalled`));
    return broken.includes(null) ? null : (broken[0] ?? null);
  }

  #dma(o: Dma, result: OkResult, reached: readonly Reached[]): Violation | null {
    const { lab, model } = this.#watched;
    const ioas = model.ioasOf(o.dev, o.pasid);
    const pasid = o.pasid === undefined ? '' : ` with PASID ${o.pasid}`;
    const what = `the ${o.write === true ? 'write' : 'read'} of ${o.dev} at page ${o.page}${pasid}`;
    // A device that nobody has bound is the host's.
    if (ioas === null && !lab.device(o.dev).vfio.bound) return null;
    const off = model.offOf(lab.device(o.dev).smmu);
    // An SMMU that has lost its registers lets pass what GBPA says after a reset.
    if (off === 'lost') return null;
    if (off === 'aborts' && result.dma?.status === 'ok')
      return { rule: RULE, message: `${what} went through; its SMMU is suspended and aborts everything` };
    if (off === 'aborts') return null;
    const mine = reached.filter(({ dev }) => dev === o.dev);
    for (const one of mine) {
      const message = this.#outside(one, ioas, what);
      if (message !== null) return { rule: RULE, message };
    }
    if (ioas !== null && mine.length > 0 && this.#type !== null)
      return { rule: RULE, message: `${what} went past caches: memory type ${this.#type}, mapped as write-back` };
    const others = this.#retried(reached.filter(({ dev }) => dev !== o.dev));
    if (others !== null) return others;
    if (ioas !== null && this.#mappings.doubtful(ioas).has(o.page)) return null;
    return this.#mustWork(o, result, ioas, what);
  }

  /** Why an access is not one to a page that an IOAS maps; null: it is. */
  #outside({ pa, isWrite }: Reached, ioas: string | null, what: string): string | null {
    const guest = this.#watched.lab.guests.find((one) => one.holdsPa(pa));
    const page = guest === undefined ? -1 : Number((pa - guest.pa) >> PAGE_SHIFT);
    const where = guest === undefined ? `0x${pa.toString(16)}, memory of no VM` : `page ${page} of ${guest.name}`;
    if (ioas === null) return `${what} reached ${where}; it is attached to nothing`;
    const pages = [...(this.#mappings.of(ioas)?.values() ?? [])];
    const mapped = pages.filter((one) => one.vm === guest?.index && one.page === page);
    if (mapped.some(({ writable }) => writable || !isWrite)) return null;
    if (mapped.length > 0) return `${what} reached ${where}, which ${ioas} maps for reading only`;
    return pages.some((one) => one.vm === guest?.index) || ioas === `a${guest?.index}`
      ? `${what} reached ${where}, which ${ioas} does not map`
      : `${what} reached ${where}; it is attached to ${ioas}`;
  }

  /** Without a guest's tables in between the answer is known. */
  #mustWork(o: Dma, { dma }: OkResult, ioas: string | null, what: string): Violation | null {
    const { lab, model } = this.#watched;
    const mapping = ioas === null ? undefined : this.#mappings.of(ioas);
    const direct = model.reachesDirectly(o.dev, o.pasid) && !this.#unsure.has(lab.device(o.dev).smmu);
    // The core lets a PASID be attached where no device has any (iommu_attach_device_pasid): none can use it.
    const possible = o.pasid === undefined || (lab.config.pasidBits ?? 0) > 0;
    if (!possible || !direct || mapping === undefined) return null;
    const wanted = mapping.get(o.page);
    if (o.write === true) {
      const may = wanted?.writable === true;
      if (may === (dma?.status === 'ok')) return null;
      return {
        rule: RULE,
        message: `${what} gave ${dma?.status ?? 'nothing'}; the page is ${may ? 'writable' : 'not'}`,
      };
    }
    if (wanted?.page === dma?.page && wanted?.vm === dma?.vm) return null;
    const got = dma?.page === undefined ? (dma?.status ?? 'nothing') : `page ${dma.page}`;
    return {
      rule: RULE,
      message: `${what} gave ${got}, expected ${wanted === undefined ? 'abort' : `page ${wanted.page}`}`,
    };
  }
}

/** See the module comment. */
export const dmaContained: Property = {
  name: 'dma-contained',
  title: 'DMA reaches only pages that the IOAS of its attachment maps now',
  foreign: true,
  monitor: (watched) => new DmaContained(watched),
};
