/**
 * DMA of a device behind a nested HWPT goes where the guest's own CDs and tables say, over what its IOAS maps: to where
 * they lead now, or to where they led before, if the guest has sent no invalidation since that covers it. What is a fault in
 * them is a fault, and what is not one works.
 *
 * What the guest may meet is worked out by a model of its stage 1 that shares nothing with driver and hardware
 * ({@link GuestStage1}); which mapping of stage 2 is in force is never in doubt.
 */

import type { SmmuConfig } from '../../hw/config.ts';
import { FIRST_DATA_PAGE, GUEST_CDS, type VsteMode, type VsteOptions } from '../guest.ts';
import { FAULT, GuestStage1, type Stage1 } from '../guest-stage1.ts';
import { LAB_PRESETS } from '../lab.ts';
import { Mappings } from '../mappings.ts';
import type { DmaOutcome, OkResult, Operation, OperationResult } from '../operation.ts';
import type { Monitor, Property, Violation, Watched } from '../property.ts';

const RULE = 'guest-tables';

/** Operations after which nothing is known any more: the machine or the kernel began anew. */
const ANEW: ReadonlySet<string> = new Set([
  'smmuSuspend',
  'smmuResume',
  'smmuReset',
  'cmdqvReset',
  'smmuUnplug',
  'kexec',
]);

interface Nested {
  readonly vste: VsteMode;
  readonly options: VsteOptions;
}

type Dma = Extract<Operation, { op: 'dma' }>;

class GuestTables implements Monitor {
  readonly #watched: Watched;
  readonly #mappings: Mappings;
  readonly #stage1: GuestStage1;
  readonly #nested = new Map<string, Nested>();
  readonly #smmuOfViommu = new Map<string, string>();
  readonly #vdevices = new Map<string, { readonly dev: string; readonly viommu: string; readonly vsid: number }>();
  /** IOASes in which the guest's tables lie, or lay, elsewhere than the guest thinks. */
  readonly #tainted = new Set<string>();
  /** SMMUs behind which a device does not answer, or a queue did not. */
  readonly #unsure = new Set<string>();
  readonly #resets = new Map<string, number>();
  #lost = false;
  /** SMMUs invalidate by range, and know SubstreamIDs. */
  readonly #range: boolean;
  readonly #ssids: boolean;

  constructor(watched: Watched) {
    this.#watched = watched;
    const { guests, config } = watched.lab;
    this.#mappings = new Mappings(guests.length);
    const { IDR0, IDR1, IDR3 = {} } = LAB_PRESETS[config.preset ?? 'linuxNesting'] as SmmuConfig;
    this.#stage1 = new GuestStage1(guests.length, IDR0.STALL_MODEL === 'STALL_TERMINATE');
    this.#range = 'RIL' in IDR3;
    this.#ssids = 'SSIDSIZE' in IDR1;
  }

  after(o: Operation, result: OperationResult): Violation | null {
    if (this.#lost) return null;
    // A CMD_SYNC that is lost leaves entries in any state.
    if (ANEW.has(o.op) || (o.op === 'fail' && o.point.startsWith('poll'))) this.#lost = true;
    this.#mappings.apply(o, result);
    if (result.status !== 'ok') return null;
    switch (o.op) {
      case 'map':
      case 'copy':
        if (o.page < FIRST_DATA_PAGE && !this.#inPlace(o.ioas, true)) this.#tainted.add(o.ioas);
        return null;
      case 'nestedAlloc':
        this.#nested.set(o.as, { vste: o.vste, options: o });
        return null;
      case 'viommuAlloc':
        this.#smmuOfViommu.set(o.as, this.#watched.lab.device(o.dev).smmu);
        return null;
      case 'vdeviceAlloc':
        this.#vdevices.set(o.as, o);
        return null;
      case 'destroy':
        this.#nested.delete(o.name);
        this.#vdevices.delete(o.name);
        this.#smmuOfViommu.delete(o.name);
        this.#tainted.delete(o.name);
        return null;
      case 'unbind':
        for (const [name, { dev }] of [...this.#vdevices]) if (dev === o.dev) this.#vdevices.delete(name);
        this.#attached(o.dev, undefined);
        return null;
      case 'attach':
        this.#attached(o.dev, this.#nested.get(o.to));
        return null;
      case 'detach':
        this.#attached(o.dev, undefined);
        return null;
      case 'resetBegin':
      case 'resetEnd':
        this.#reset(o.dev, o.op === 'resetBegin' ? 1 : -1);
        return null;
      case 'atcHang':
        this.#unsure.add(this.#watched.lab.device(o.dev).smmu);
        return null;
      default:
        return this.#guest(o, result);
    }
  }

  /** Resets nest; the first and the last write the device's STE. Without ATS it is left alone. */
  #reset(dev: string, change: 1 | -1): void {
    const before = this.#resets.get(dev) ?? 0;
    const now = Math.max(0, before + change);
    this.#resets.set(dev, now);
    if (this.#watched.lab.config.ats === true && (before === 0) !== (now === 0))
      this.#stage1.attach(dev, this.#stage1.stage1Of(dev));
  }

  /** What guests and devices do. */
  #guest(o: Operation, result: OkResult): Violation | null {
    switch (o.op) {
      case 'guestMap':
        this.#stage1.setLeaf(this.#vm(o.vm), o.space, o.page, o.to);
        return null;
      case 'guestCd':
        this.#stage1.setCd(this.#vm(o.vm), o.cd, o);
        return null;
      case 'guestTable':
        this.#stage1.setPointer(this.#vm(o.vm), o.space, o.level, o.to);
        return null;
      case 'invalidate':
        this.#invalidated(o);
        return null;
      case 'translate':
        this.#stage1.asked(o.dev, o.pasid, o.page);
        return null;
      case 'dma':
        return this.#dma(o, result);
      default:
        return null;
    }
  }

  #vm(name: string): number {
    return this.#watched.lab.guest(name).index;
  }

  /** A device has moved. Where the STE says the same as before, it may not have been written. */
  #attached(dev: string, nested: Nested | undefined): void {
    const { lab, model } = this.#watched;
    const ioas = model.ioasOf(dev);
    const vm = lab.guests.find(({ index }) => ioas === `a${index}`)?.index;
    const at: Stage1 | undefined =
      nested === undefined || vm === undefined
        ? undefined
        : { vm, scope: `${model.tagOf(dev)}@${lab.device(dev).smmu}`, vste: nested.vste, options: nested.options };
    const before = this.#stage1.stage1Of(dev);
    if (at === undefined || before === undefined || !sameSte(at, before)) this.#stage1.attach(dev, at);
  }

  #invalidated({ on, commands }: Extract<Operation, { op: 'invalidate' }>): void {
    const smmu = this.#smmuOfViommu.get(on);
    const tag = this.#watched.model.tagOfViommu(on);
    if (smmu === undefined || tag === null) return;
    const devOf = (vsid: number): string | undefined =>
      [...this.#vdevices.values()].find((one) => one.viommu === on && one.vsid === vsid)?.dev;
    this.#stage1.invalidated(`${tag}@${smmu}`, commands, devOf, this.#range);
  }

  /** Whether the guest's tables lie where it thinks; `partly`: those of its pages that are mapped at all. */
  #inPlace(ioas: string, partly: boolean): boolean {
    const mapping = this.#mappings.of(ioas);
    for (let page = 0; page < FIRST_DATA_PAGE; page++) {
      const to = mapping?.get(page);
      if (to === undefined ? !partly : to.page !== page || `a${to.vm}` !== ioas) return false;
    }
    return true;
  }

  #dma(o: Dma, { dma }: OkResult): Violation | null {
    const { lab, model } = this.#watched;
    const at = this.#stage1.stage1Of(o.dev);
    const ioas = model.ioasOf(o.dev);
    if (at === undefined || ioas === null || dma === undefined || model.inReset(o.dev)) return null;
    if (this.#unsure.has(lab.device(o.dev).smmu) || this.#tainted.has(ioas)) return null;
    const { ssids = 0 } = at.options;
    // What a vSTE that no SMMU of this kind understands does is not the question; nor are CDs beyond those there are.
    if (ssids > 0 && (!this.#ssids || 2 ** ssids > GUEST_CDS)) return null;
    const doubtful = this.#mappings.doubtful(ioas);
    if (doubtful.size > 0) return null;
    const pages = this.#stage1.answers(o.dev, o.pasid, o.page, o.ats === true) ?? new Set([FAULT]);
    if (!this.#inPlace(ioas, false)) pages.add(FAULT);
    const allowed = new Set([...pages].map((page) => this.#stage2(ioas, page, o.write === true)));
    if (o.ats === true) this.#stage1.asked(o.dev, o.pasid, o.page);
    if (allowed.has(textOf(dma)) || (dma.status === 'ok' && dma.page === undefined && [...allowed].some(isPage)))
      return null;
    const what = `the ${o.write === true ? 'write' : 'read'} of ${o.dev} at page ${o.page}`;
    const pasid = o.pasid === undefined ? '' : ` with SubstreamID ${o.pasid}`;
    return {
      rule: RULE,
      message: `${what}${pasid} gave ${textOf(dma)}; by the tables of vm${at.vm}, and what may be cached of them, it gives ${[...allowed].join(' or ')}`,
    };
  }

  /** Where an IPA page leads, as {@link textOf} says it. */
  #stage2(ioas: string, page: number, write: boolean): string {
    const to = page === FAULT ? undefined : this.#mappings.of(ioas)?.get(page);
    if (to === undefined || (write && !to.writable)) return NOWHERE;
    return write ? SOMEWHERE : `page ${to.page} of vm${to.vm}`;
  }
}

const NOWHERE = 'a fault';
const SOMEWHERE = 'ok';

const isPage = (text: string): boolean => text !== NOWHERE;

function textOf({ status, vm, page }: DmaOutcome): string {
  if (status !== 'ok') return NOWHERE;
  return page === undefined ? SOMEWHERE : `page ${page} of vm${vm}`;
}

/** Whether two attachments may have the same STE: then nothing is written, and nothing cached is dropped. */
function sameSte(a: Stage1, b: Stage1): boolean {
  const { cd = 0, ssids = 0, dss = 'TERMINATE', stalld = false } = a.options;
  const {
    cd: otherCd = 0,
    ssids: otherSsids = 0,
    dss: otherDss = 'TERMINATE',
    stalld: otherStalld = false,
  } = b.options;
  const substreams = ssids === otherSsids && (ssids === 0 || dss === otherDss);
  return (
    a.vm === b.vm && a.scope === b.scope && a.vste === b.vste && cd === otherCd && substreams && stalld === otherStalld
  );
}

/** See the module comment. */
export const guestTables: Property = {
  name: RULE,
  title: "DMA behind a guest's stage 1 goes where the guest's tables say, or said before it invalidated them",
  foreign: false,
  monitor: (watched) => new GuestTables(watched),
};
