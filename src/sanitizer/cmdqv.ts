/** Tegra241 CMDQV: VINTFs, their VMIDs and StreamID pairs, and their queues (rules CMDQV-*). */
import {
  CMDQV_MAX_SIDS,
  VCMDQ_BASE,
  VINTF_BLOCK_STRIDE,
  VINTF_SID_MATCH,
  VINTF_SID_REPLACE,
  vintfBlock,
} from '../../spec/index.ts';
import type { CmdqvAccess, VcmdqAct, VintfAct } from '../hw/observer.ts';
import type { Cmdqv } from '../hw/tegra241/cmdqv.ts';
import { type Context, hex } from './context.ts';
import { unitOf } from './units.ts';

/** VINTF that the host keeps for itself. */
const HOST_VINTF = 0;
const COMMAND_UNITS = 2;
const LOG2SIZE = VCMDQ_BASE.slot('LOG2SIZE');
const ADDRESS = VCMDQ_BASE.mask(['ADDR']);

/** What the rules have to ask of the SMMU's state. */
export interface CmdqvView {
  /** Owner of a VMID by announcement, or null. */
  owner(vmid: number): string | null;
  /** VMIDs that a stream's STE in memory tags entries with; -1: none. */
  memoryVmid(sid: number): number;
  /** Whether the STE of a stream in memory is nested. */
  nested(sid: number): boolean;
  /** Software tells which streams are attached through a vIOMMU. */
  told(): boolean;
}

interface Vintf {
  enabled: boolean;
  VMID: number;
  HYP_OWN: boolean;
}

/** See the module comment. One for each SMMU with a CMDQV. */
export class CmdqvRules {
  readonly #context: Context;
  readonly #smmu: string;
  readonly #cmdqv: Cmdqv;
  readonly #view: CmdqvView;
  readonly #vintfs = new Map<number, Vintf>();
  /** VCMDQs that consume. */
  readonly #enabled = new Set<number>();
  /** VCMDQs of VMs that stopped, and no CMD_SYNC on the SMMU's own queue since. */
  readonly #unsynced = new Set<number>();

  constructor(context: Context, smmu: string, cmdqv: Cmdqv, view: CmdqvView) {
    this.#context = context;
    this.#smmu = smmu;
    this.#cmdqv = cmdqv;
    this.#view = view;
    for (const { index, enabled, VMID, hypOwn } of cmdqv.vintfs)
      if (enabled) this.#vintfs.set(index, { enabled, VMID, HYP_OWN: hypOwn });
    for (const queue of cmdqv.vcmdqs) if (queue.enabled) this.#enabled.add(queue.q);
  }

  /** Commands that wait in the host's VCMDQs, by the name of the queue. */
  waiting(): [queue: string, commands: number][] {
    return this.#cmdqv.vcmdqs
      .filter(({ enabled, owner, ring }) => enabled && owner?.hypOwn === true && ring.used > 0)
      .map(({ name, ring }) => [name, ring.used]);
  }

  /** Name of an enabled guest VINTF that carries a VMID, or ''. */
  carrier(vmid: number): string {
    for (const [v, { enabled, VMID, HYP_OWN }] of this.#vintfs)
      if (enabled && !HYP_OWN && VMID === vmid) return `VINTF ${v}`;
    return '';
  }

  /** A VINTF was enabled or disabled. */
  vintf({ vintf, enabled, VMID, HYP_OWN }: VintfAct): void {
    this.#context.history.text(
      this.#smmu,
      `VINTF ${vintf} ${enabled ? `enabled with VMID ${VMID}` : 'disabled'}`,
      HYP_OWN ? {} : { VMID },
    );
    this.#vintfs.set(vintf, { enabled, VMID, HYP_OWN });
    if (!enabled) return;
    if (HYP_OWN) {
      if (vintf !== HOST_VINTF) this.#report('CMDQV-12', `VINTF ${vintf}, a VM's, is enabled with HYP_OWN`);
      return;
    }
    if (this.#context.noted('vmid') && this.#view.owner(VMID) === null)
      this.#report('CMDQV-1', `VINTF ${vintf} is enabled with VMID ${VMID}, which nobody owns`, VMID);
    this.#judgePairs(vintf);
  }

  /** A register was written: pairs are what matters here. */
  written({ offset, ignored }: CmdqvAccess): void {
    if (ignored !== '') return;
    const v = Math.floor((offset - vintfBlock(0)) / VINTF_BLOCK_STRIDE);
    if (v < 0 || !this.#cmdqv.vintfs.some(({ index }) => index === v)) return;
    const at = offset - vintfBlock(v);
    const pairs = (register: { readonly offset: number }): boolean =>
      at >= register.offset && at < register.offset + 4 * CMDQV_MAX_SIDS;
    if (pairs(VINTF_SID_MATCH) || pairs(VINTF_SID_REPLACE)) this.#judgePairs(v);
  }

  /** CMDQV-2: streams of the VM are tagged with the VMID that its commands are executed with. */
  #judgePairs(v: number): void {
    const vintf = this.#vintfs.get(v);
    if (vintf === undefined || !vintf.enabled || vintf.HYP_OWN || this.#view.told()) return;
    for (const [, sid] of this.#pairs(v)) this.#judgeStream(sid, v, vintf);
  }

  #judgeStream(sid: number, v: number, vintf: Vintf): void {
    const vmid = this.#view.memoryVmid(sid);
    if (vmid < 0 || vmid === vintf.VMID || !this.#view.nested(sid)) return;
    this.#report(
      'CMDQV-2',
      `VINTF ${v} has VMID ${vintf.VMID} and maps StreamID ${hex(sid)}, whose STE has VMID ${vmid}`,
      vintf.VMID,
      sid,
    );
  }

  #pairs(v: number): readonly (readonly [number, number])[] {
    return this.#cmdqv.vintfs.find(({ index }) => index === v)?.pairs() ?? [];
  }

  /** The STE of a stream changed and settled. */
  settled(sid: number): void {
    for (const [v, vintf] of this.#vintfs)
      if (vintf.enabled && !vintf.HYP_OWN && this.#pairs(v).some(([, physical]) => physical === sid))
        this.#judgeStream(sid, v, vintf);
  }

  /** A stream gets another owner: no VINTF may map it. */
  given(sid: number, owner: string): void {
    for (const [v, { enabled }] of this.#vintfs)
      if (enabled && this.#pairs(v).some(([, physical]) => physical === sid))
        this.#report(
          'CMDQV-4',
          `StreamID ${hex(sid)} was given to ${owner} and is still mapped by VINTF ${v}`,
          undefined,
          sid,
        );
  }

  /** Whether an enabled VINTF of a VM maps a stream. */
  maps(sid: number): boolean {
    for (const [v, { enabled, HYP_OWN }] of this.#vintfs)
      if (enabled && !HYP_OWN && this.#pairs(v).some(([, physical]) => physical === sid)) return true;
    return false;
  }

  /** A stream's vDEVICE is gone: no VINTF may map it. */
  unmapped(sid: number): void {
    if (this.maps(sid))
      this.#report('CMDQV-4', `the vDEVICE of StreamID ${hex(sid)} is gone and a VINTF maps it`, undefined, sid);
  }

  /** A VCMDQ was mapped, enabled and so on. */
  vcmdq({ vcmdq, vintf, act }: VcmdqAct): void {
    const guest = vintf >= 0 && this.#vintfs.get(vintf)?.HYP_OWN !== true;
    this.#context.history.text(this.#smmu, `VCMDQ ${vcmdq} (VINTF ${vintf}) ${act}`, {});
    if (act === 'enabled') this.#enabled.add(vcmdq);
    if (act === 'disabled') {
      this.#enabled.delete(vcmdq);
      if (guest) this.#unsynced.add(vcmdq);
    }
    if (act === 'mapped' && this.#unsynced.delete(vcmdq))
      this.#report(
        'CMDQV-10',
        `VCMDQ ${vcmdq}, disabled for another VM, was mapped to VINTF ${vintf} without a CMD_SYNC on the SMMU's own queue between`,
      );
  }

  /** A CMD_SYNC completed on the SMMU's own queue. */
  synced(): void {
    this.#unsynced.clear();
  }

  /** Memory was given back: units [first, end). */
  freed(first: number, end: number): void {
    for (const queue of this.#cmdqv.vcmdqs) {
      if (!this.#enabled.has(queue.q)) continue;
      const { base } = queue.ring;
      const unit = unitOf(base.hi & (ADDRESS[1] ?? 0), base.lo & (ADDRESS[0] ?? 0));
      const units = COMMAND_UNITS * 2 ** ((base.lo >>> LOG2SIZE.shift) & LOG2SIZE.mask);
      if (unit < end && unit + units > first)
        this.#report(
          'CMDQV-11',
          `memory of VCMDQ ${queue.q} at ${hex(BigInt(unit) * 8n)} was given back while it is enabled`,
        );
    }
  }

  #report(rule: string, what: string, VMID?: number, StreamID?: number): void {
    this.#context.report(rule, `${this.#smmu}: ${what}`, {
      smmu: this.#smmu,
      ...(VMID === undefined ? {} : { VMID }),
      ...(StreamID === undefined ? {} : { StreamID }),
    });
  }
}
