/**
 * A vSID is one device, that of its vDEVICE, for as long as the vDEVICE lives. What a guest does with it reaches that device,
 * all of its streams, and no other: CFGI_CD drops cached CDs of these streams, ATC_INV asks this endpoint. Without a vDEVICE
 * it names nothing: EIO. Two vDEVICEs of a vIOMMU never share one. What a VM reads of its vEVENTQ is about vSIDs that its
 * devices had when they were attached, and a fault in its own stage 1 is there to be read.
 *
 * Effects are what hardware announces; who has which vSID is kept from what was asked for and granted.
 */
import { GUEST_PAGES } from '../guest.ts';
import { Mappings } from '../mappings.ts';
import type { OkResult, Operation, OperationResult } from '../operation.ts';
import { ACCEPTED_COMMANDS, type GuestCommand } from '../operations/guest-command.ts';
import type { Monitor, Property, Violation, Watched } from '../property.ts';
import { mayRefuse } from './no-ats.ts';
import { watching } from './watching.ts';

const RULE = 'vsid-means-one-device';

/** Commands that name a vSID. */
const BY_VSID: ReadonlySet<string> = new Set(['CFGI_CD', 'CFGI_CD_ALL', 'ATC_INV']);
const ACCEPTED: ReadonlySet<string> = new Set(ACCEPTED_COMMANDS);

type Invalidate = Extract<Operation, { op: 'invalidate' }>;

interface Vdevice {
  readonly dev: string;
  readonly viommu: string;
  readonly vsid: number;
}

/** A device behind a nested HWPT, with the vSID that it had when it was attached there. */
interface Attached {
  /** The nested HWPT. */
  readonly to: string;
  readonly viommu: string;
  readonly vsid: number | undefined;
  readonly translates: boolean;
}

/** What is to be read from the vEVENTQs of a vIOMMU. */
interface Expected {
  /** vSIDs of which there may be events. */
  readonly may: Set<number>;
  /** vSIDs of which there must be one, or the word that some were lost. */
  readonly must: Set<number>;
}

const hex = (sid: number): string => `0x${sid.toString(16)}`;

class VsidMeansOneDevice implements Monitor {
  readonly #watched: Watched;
  readonly #mappings: Mappings;
  readonly #vdevices = new Map<string, Vdevice>();
  readonly #smmuOfViommu = new Map<string, string>();
  readonly #nested = new Map<string, { readonly viommu: string; readonly translates: boolean }>();
  readonly #attached = new Map<string, Attached>();
  /** By vEVENTQ: its vIOMMU. */
  readonly #queues = new Map<string, string>();
  readonly #expected = new Map<string, Expected>();
  /** By vIOMMU: vSIDs that had an access refused. Its event may come when a vEVENTQ that was made later is there (7.2). */
  readonly #refused = new Map<string, Set<number>>();
  /** What the operation under way did: `smmu StreamID` of CDs that were dropped, names of endpoints that were asked. */
  #dropped = new Set<string>();
  #asked = new Set<string>();
  /** Hardware had not done all earlier commands when the operation began: their CMD_SYNC timed out. */
  #behind = false;
  #unwatch: (() => void) | null = null;
  /** Events are sure to be there once the operation is over. */
  #prompt: boolean;
  /** A device does not answer, or the machine began anew: other things are sent than what guests ask for. */
  #unsure = false;

  constructor(watched: Watched) {
    this.#watched = watched;
    this.#mappings = new Mappings(watched.lab.guests.length);
    const { schedule, stalls } = watched.lab.config;
    // A driver of one's own need not read its Event queue.
    this.#prompt = schedule?.mode !== 'seeded' && stalls !== true && watched.lab.driver !== null;
  }

  before({ op }: Operation): void {
    if (op !== 'invalidate') return;
    this.#dropped = new Set();
    this.#asked = new Set();
    const { smmus, watch } = this.#watched.lab.machine;
    this.#behind = smmus.some(({ commandQueue: { ring, pending } }) => ring.used + pending.length > 0);
    this.#unwatch = watching(watch, (act) => {
      if (act.kind === 'config-invalidated' && act.what === 'CD')
        for (let sid = act.firstSid; sid <= act.lastSid; sid++) this.#dropped.add(`${act.smmu} ${sid}`);
      else if (act.kind === 'ats' && act.message === 'invalidate') this.#asked.add(act.endpoint);
    });
  }

  after(o: Operation, result: OperationResult): Violation | null {
    this.#unwatch?.();
    this.#unwatch = null;
    this.#mappings.apply(o, result);
    const message = this.#judge(o, result);
    return message === null ? null : { rule: RULE, message };
  }

  #judge(o: Operation, result: OperationResult): string | null {
    switch (o.op) {
      case 'fail':
      case 'smmuSuspend':
      case 'smmuResume':
      case 'smmuReset':
      case 'cmdqvReset':
      case 'smmuUnplug':
      case 'kexec':
      case 'atcHang':
        this.#prompt = false;
        this.#unsure ||= o.op !== 'fail';
        if (o.op === 'kexec') this.#forget();
        if (o.op === 'smmuUnplug')
          for (const { name, smmu, vfio } of this.#watched.lab.devices)
            if (smmu === o.smmu && !vfio.bound) this.#unbound(name);
        return null;
      case 'guestCd':
      case 'guestTable':
        // Tables outside its memory fault in stage 2, which is the host's business.
        if (('outside' in o && o.outside === true) || ('to' in o && o.to === 'outside')) this.#prompt = false;
        return null;
      case 'invalidate':
        return this.#invalidate(o, result);
      default:
        return result.status === 'ok' ? this.#granted(o, result) : null;
    }
  }

  /** Its vDEVICE goes with a device. */
  #unbound(dev: string): void {
    this.#attached.delete(dev);
    for (const [name, one] of [...this.#vdevices]) if (one.dev === dev) this.#vdevices.delete(name);
  }

  /** The VMs are gone with their kernel. */
  #forget(): void {
    for (const known of [
      this.#vdevices,
      this.#smmuOfViommu,
      this.#nested,
      this.#attached,
      this.#queues,
      this.#expected,
      this.#refused,
    ])
      known.clear();
  }

  #granted(o: Operation, result: OkResult): string | null {
    switch (o.op) {
      case 'viommuAlloc':
        this.#smmuOfViommu.set(o.as, this.#watched.lab.device(o.dev).smmu);
        return null;
      case 'vdeviceAlloc': {
        const other = this.#find(o.viommu, o.vsid);
        this.#vdevices.set(o.as, o);
        return other === undefined
          ? null
          : `vSID ${o.vsid} of ${o.viommu} is that of ${other.dev} and now of ${o.dev} too`;
      }
      case 'nestedAlloc':
        if (this.#smmuOfViommu.has(o.on)) this.#nested.set(o.as, { viommu: o.on, translates: o.vste === 'translate' });
        return null;
      case 'attach':
        this.#attach(o.dev, o.to);
        return null;
      case 'detach':
        this.#attached.delete(o.dev);
        return null;
      case 'unbind':
        this.#unbound(o.dev);
        return null;
      case 'veventqAlloc':
        if (o.type === 'tegra241-cmdqv') return null; // it is told of VCMDQs, not of streams
        this.#queues.set(o.as, o.viommu);
        this.#expected.set(o.viommu, {
          may: new Set(this.#prompt ? [] : this.#refused.get(o.viommu)),
          must: new Set(),
        });
        return null;
      case 'veventRead':
        return this.#read(o.on, result);
      case 'dma':
        this.#dma(o, result);
        return null;
      case 'destroy':
        this.#vdevices.delete(o.name);
        this.#nested.delete(o.name);
        this.#smmuOfViommu.delete(o.name);
        this.#refused.delete(o.name);
        this.#expected.delete(this.#queues.get(o.name) ?? '');
        this.#queues.delete(o.name);
        return null;
      default:
        return null;
    }
  }

  #find(viommu: string, vsid: number): Vdevice | undefined {
    return [...this.#vdevices.values()].find((one) => one.viommu === viommu && one.vsid === vsid);
  }

  #attach(dev: string, to: string): void {
    // Moved to where it is: the kernel does nothing, and asks for no vDEVICE (`iommufd_device_do_replace`).
    if (this.#attached.get(dev)?.to === to) return;
    const nested = this.#nested.get(to);
    if (nested === undefined) {
      this.#attached.delete(dev);
      return;
    }
    const vdevice = [...this.#vdevices.values()].find((one) => one.viommu === nested.viommu && one.dev === dev);
    this.#attached.set(dev, { ...nested, to, vsid: vdevice?.vsid });
  }

  #invalidate({ on, commands }: Invalidate, result: OperationResult): string | null {
    const smmu = this.#smmuOfViommu.get(on);
    if (smmu === undefined || this.#unsure) return null;
    const unknown = commands.find(
      ({ command, vsid = 0 }) => BY_VSID.has(command) && this.#find(on, vsid) === undefined,
    );
    if (result.status === 'error') {
      const fine = unknown === undefined && commands.every(({ command }) => ACCEPTED.has(command));
      if (fine && result.errno === 'EIO' && !mayRefuse(this.#watched.lab, commands))
        return `${on}: EIO (${result.why}) for ${commands.map(({ command }) => command).join(', ')}, whose vSIDs have vDEVICEs`;
      return null;
    }
    if (result.status !== 'ok') return null;
    if (unknown !== undefined)
      return `${on}: ${unknown.command} of vSID ${unknown.vsid ?? 0}, which no vDEVICE of it has, went through`;
    return this.#effects(on, smmu, commands);
  }

  /** All that had to be reached was, and nothing else. */
  #effects(on: string, smmu: string, commands: readonly GuestCommand[]): string | null {
    const { lab } = this.#watched;
    const dropped = new Map<string, string>();
    const asked = new Set<string>();
    const { SSIDSIZE } = lab.machine.smmu(smmu).caps;
    for (const { command, vsid = 0, ssid = 0 } of commands) {
      // There is no CD of such a substream.
      if (command === 'CFGI_CD' && ssid >= 2 ** SSIDSIZE) continue;
      const vdevice = BY_VSID.has(command) ? this.#find(on, vsid) : undefined;
      if (vdevice === undefined) continue;
      const { endpoint } = lab.device(vdevice.dev);
      if (command === 'ATC_INV') {
        if (endpoint.ats !== null) asked.add(vdevice.dev);
        continue;
      }
      for (const sid of endpoint.streamIds) {
        dropped.set(`${smmu} ${sid}`, vdevice.dev);
        if (!this.#dropped.has(`${smmu} ${sid}`))
          return `${on}: ${command} of vSID ${vsid} did not reach StreamID ${hex(sid)} of ${vdevice.dev}`;
      }
    }
    for (const dev of asked)
      if (!this.#asked.has(dev) && this.#hasAts(dev)) return `${on}: ATC_INV did not reach ${dev}`;
    if (this.#behind) return null;
    for (const stream of this.#dropped)
      if (!dropped.has(stream)) return `${on}: commands for its devices dropped CDs of another stream, ${stream}`;
    for (const dev of this.#asked)
      if (!asked.has(dev)) return `${on}: commands for its devices reached the ATC of ${dev}`;
    return null;
  }

  /** An SMMU without ATS knows no CMD_ATC_INV. */
  #hasAts(dev: string): boolean {
    const { lab } = this.#watched;
    return lab.machine.smmu(lab.device(dev).smmu).caps.ATS;
  }

  /** A device had an access refused: who may, and who must hear of it. */
  #dma(o: Extract<Operation, { op: 'dma' }>, { dma }: OkResult): void {
    const at = this.#attached.get(o.dev);
    if (at?.vsid === undefined || dma === undefined || (dma.status === 'ok' && (o.times ?? 1) === 1)) return;
    const refused = this.#refused.get(at.viommu) ?? new Set();
    this.#refused.set(at.viommu, refused.add(at.vsid));
    const expected = this.#expected.get(at.viommu);
    if (expected === undefined) return;
    expected.may.add(at.vsid);
    if (this.#prompt && at.translates && dma.status === 'abort' && o.ats !== true && this.#allMapped(o.dev))
      expected.must.add(at.vsid);
  }

  /** Stage 2 refuses nothing: what is refused is the guest's own doing. */
  #allMapped(dev: string): boolean {
    const { model } = this.#watched;
    const ioas = model.ioasOf(dev);
    const mapping = ioas === null || model.inReset(dev) ? undefined : this.#mappings.of(ioas);
    if (ioas === null || mapping === undefined || this.#mappings.doubtful(ioas).size > 0) return false;
    for (let page = 0; page < GUEST_PAGES; page++) {
      const to = mapping.get(page);
      if (to === undefined || !to.writable) return false;
    }
    return true;
  }

  #read(queue: string, { events = [] }: OkResult): string | null {
    const viommu = this.#queues.get(queue) ?? '';
    const expected = this.#expected.get(viommu);
    if (expected === undefined || this.#unsure) return null;
    let lost = false;
    for (const record of events) {
      if (!('vsid' in record)) {
        lost = true;
        continue;
      }
      expected.must.delete(record.vsid);
      if (!expected.may.has(record.vsid))
        return `${queue} of ${viommu} has an event ${record.event} of vSID ${record.vsid}; no device attached with that vSID has had one`;
    }
    const [missing] = expected.must;
    expected.must.clear();
    return missing === undefined || lost || !this.#prompt
      ? null
      : `an access of the device with vSID ${missing} was refused by its guest's tables, and ${queue} of ${viommu} has no event of it`;
  }
}

/** See the module comment. */
export const vsidMeansOneDevice: Property = {
  name: RULE,
  title: "what a guest does with a vSID reaches its vDEVICE's device, all of it and no other; events carry it",
  foreign: true,
  monitor: (watched) => new VsidMeansOneDevice(watched),
};
