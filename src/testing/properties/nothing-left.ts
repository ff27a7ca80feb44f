/**
 * When every device is closed and the descriptor too, nothing remains, in whatever order things were made: no VMID, no
 * object, no id, no page beyond those the driver had when it started and the CD tables that it keeps for each device.
 */
import { CR0 } from '../../../spec/index.ts';
import { INHERITED } from '../../driver/arm-smmu-v3/index.ts';
import type { StalledAccess } from '../lab.ts';
import type { Operation } from '../operation.ts';
import type { Monitor, Property, Violation, Watched } from '../property.ts';

const RULE = 'nothing-left';

/** What a device keeps from its first stage 1 attachment until it is released (Linux: `arm_smmu_free_cd_tables`). */
const KEPT = /^cd-/;

class NothingLeft implements Monitor {
  readonly #watched: Watched;
  readonly #pages = new Map<bigint, string>();
  /** What the core says of devices that it could not unbind, because vIOMMUs count on them. */
  readonly #counted = new Set<string>();
  /** Accesses that wait for an answer from a kernel that was taken over from. */
  readonly #orphans = new Set<StalledAccess>();

  constructor(watched: Watched) {
    this.#watched = watched;
    watched.lab.kernel.onNote(({ what, act, id, owner }) => {
      if (what !== 'page') return;
      if (act === 'alloc') this.#pages.set(id, owner);
      else if (act === 'free') this.#pages.delete(id);
    });
  }

  before(o: Operation): void {
    const { lab } = this.#watched;
    if (o.op === 'kexec') for (const one of lab.stalled) if (one.end === undefined) this.#orphans.add(one);
    if (o.op !== 'unbind' || lab.config.iommuHold !== 'users') return;
    const { vfio } = lab.device(o.dev);
    if (vfio.bound)
      this.#counted.add(`iommufd: ${vfio.idev.label} is destroyed with ${vfio.idev.heldBy.size} other users`);
  }

  /** An inherited number that the STE of a device which nobody has claimed still names. */
  #named(line: string): boolean {
    const [smmu = '', vmid = '', owner = ''] = line.split(' ');
    if (owner !== INHERITED) return false;
    return this.#watched.lab.machine
      .smmu(smmu)
      .vmidHolders(Number(vmid))
      .some(({ kind }) => kind === 'ste');
  }

  /** A number that hardware may still use: nobody has confirmed that it does not. */
  #waits(line: string): boolean {
    const [smmu = '', vmid = ''] = line.split(' ');
    const { driver } = this.#watched.lab;
    return driver?.quarantined().some(({ what }) => what === `${smmu} VMID ${vmid}`) ?? false;
  }

  /**
   * A stream that a crash kernel has inherited, and nobody claimed, may stall without end: its Event queue is off, so that
   * nobody hears of it, and the record waits until the queue can be written (7.2).
   */
  #unheard(name: string): boolean {
    const { lab } = this.#watched;
    const { smmu, sid } = lab.device(name);
    const driven = lab.driver?.smmus.find((one) => one.name === smmu);
    return driven?.inherited.sids.includes(sid) === true && !lab.machine.smmu(smmu).regs.enabled(CR0.bit('EVENTQEN'));
  }

  /**
   * Only the kernel before knows the STAG, and CMD_STALL_TERM may not be sent to a stream that goes on (4.7.2): what it has
   * not answered waits until the device is claimed.
   */
  #orphaned(access: StalledAccess): boolean {
    const { lab } = this.#watched;
    const { smmu, endpoint } = lab.device(access.dev);
    const driven = lab.driver?.smmus.find((one) => one.name === smmu);
    const unclaimed = endpoint.streamIds.filter((sid) => driven?.inherited.sids.includes(sid));
    const waiting = lab.machine.smmu(smmu).stalls.stalled;
    return this.#orphans.has(access) && waiting.some(({ StreamID }) => unclaimed.includes(StreamID));
  }

  atEnd(): Violation | null {
    const { lab } = this.#watched;
    const broken = (message: string): Violation => ({ rule: RULE, message: `after close ${message}` });
    const vmids = lab.ledger
      .list()
      .filter((line) => !lab.baseline.vmids.includes(line) && !this.#named(line) && !this.#waits(line));
    if (vmids.length > 0) return broken(`VMIDs are owned: ${vmids.join('; ')}`);
    for (const { objects, handles, pins } of lab.contexts) {
      if (!objects.empty) return broken(`objects are left: ${objects.list().map(({ label }) => label)}`);
      if (handles.size > 0) return broken(`${handles.size} attach handles are left`);
      // Pages whose invalidation nobody has confirmed wait, and stay pinned.
      if (pins.pinned > 0 && (lab.driver?.quarantined().length ?? 0) === 0)
        return broken(`${pins.pinned} pages are still pinned`);
    }
    const left = [...this.#pages].filter(([pa, what]) => !lab.baseline.pages.has(pa) && !KEPT.test(what));
    // So do tables.
    if (left.length > 0 && (lab.driver?.quarantined().length ?? 0) === 0)
      return broken(`pages are left: ${left.map(([pa, what]) => `0x${pa.toString(16)} (${what})`)}`);
    const waiting = lab.stalled.find((one) => one.end === undefined && !this.#unheard(one.dev) && !this.#orphaned(one));
    if (waiting !== undefined) return broken(`the access of ${waiting.dev} to page ${waiting.page} still stalls`);
    const warning = lab.kernel.messages.find(
      ({ level, text }) => level === 'warn' && LEAK.test(text) && !this.#counted.has(text),
    );
    return warning === undefined ? null : broken(`the log has: ${warning.text}`);
  }
}

/** Warnings that the core gives for objects whose counts are wrong. */
const LEAK = /leaked|users fell|other users|is left/;

/** See the module comment. */
export const nothingLeft: Property = {
  name: 'nothing-left',
  title: 'after close nothing remains: VMIDs, objects, ids, pages, stalled accesses',
  foreign: true,
  monitor: (watched) => new NothingLeft(watched),
};
