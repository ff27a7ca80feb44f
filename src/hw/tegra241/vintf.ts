/** A virtual interface: its registers, the VMID and ownership in force, and its StreamID pairs. */
import {
  VINTF_CONFIG,
  VINTF_LVCMDQ_ERR_MAP,
  VINTF_SID_MATCH,
  VINTF_SID_REPLACE,
  VINTF_STATUS,
} from '../../../spec/tegra241.ts';
import { writableBits } from '../registers.ts';
import { type CmdqvContext, copyAt, type Ignored, violation } from './context.ts';
import type { Confinement } from './guest-command.ts';
import type { Vcmdq } from './vcmdq.ts';

const EN = VINTF_CONFIG.bit('EN');
const OWNERSHIP = VINTF_CONFIG.bit('VMID', 'HYP_OWN');
const ENABLE = VINTF_SID_MATCH.bit('ENABLE');

/** What a VINTF needs of its CMDQV. */
export interface VintfHost {
  /** CMDQV_EN is in force, and still wanted. */
  readonly on: boolean;
  /** Something was written that may start or stop VINTFs or VCMDQs. */
  changed(): void;
  /** Whether a VCMDQ counts as in error in the error maps. */
  inError(queue: Vcmdq): boolean;
  /** Every VINTF's pairs, for the check that no two VMs name one device. */
  readonly vintfs: readonly Vintf[];
}

/** See the module comment. */
export class Vintf implements Confinement {
  readonly index: number;
  readonly #context: CmdqvContext;
  readonly #host: VintfHost;
  readonly #configMask: number;
  readonly #matchMask: number;
  readonly #replaceMask: number;
  /** VCMDQs by LVCMDQ. */
  readonly slots = new Map<number, Vcmdq>();
  readonly #match: Uint32Array;
  readonly #replace: Uint32Array;
  #config = 0;
  /** VMID and HYP_OWN as latched when EN was set. */
  #latched = 0;
  /** EN was written while the CMDQV was on, or that does not matter. */
  #armed = false;
  /** STATUS.ENABLED: EN in force. */
  enabled = false;

  constructor(index: number, context: CmdqvContext, host: VintfHost) {
    this.index = index;
    this.#context = context;
    this.#host = host;
    const { caps } = context.target;
    this.#configMask = writableBits(VINTF_CONFIG, caps)[0];
    this.#matchMask = writableBits(VINTF_SID_MATCH, caps)[0];
    this.#replaceMask = writableBits(VINTF_SID_REPLACE, caps)[0];
    this.#match = new Uint32Array(context.counts.sids);
    this.#replace = new Uint32Array(context.counts.sids);
  }

  /** Back to the reset values. */
  reset(): void {
    this.slots.clear();
    this.#match.fill(0);
    this.#replace.fill(0);
    this.#config = 0;
    this.#latched = 0;
    this.#armed = false;
    this.enabled = false;
  }

  /** EN as written: STATUS follows. */
  get wanted(): boolean {
    return (this.#config & EN) !== 0 && this.#armed && this.#host.on;
  }

  /** From EN = 1 until STATUS says disabled, hardware may use the VMID. */
  get inUse(): boolean {
    return (this.#config & EN) !== 0 || this.enabled;
  }

  /** The VMID in force. */
  get VMID(): number {
    return VINTF_CONFIG.of(this.#latched, 'VMID');
  }

  /** The hypervisor's own: commands are executed as they are. */
  get hypOwn(): boolean {
    return VINTF_CONFIG.of(this.#latched, 'HYP_OWN') === 1;
  }

  /** STATUS follows EN. */
  enable(on: boolean): void {
    this.enabled = on;
    const { smmu, watch } = this.#context;
    watch.observer?.({ kind: 'vintf', smmu, vintf: this.index, enabled: on, VMID: this.VMID, HYP_OWN: this.hypOwn });
  }

  physicalSid(virtSid: number): number {
    for (let s = 0; s < this.#match.length; s++)
      if (this.#virtSid(s) === virtSid) return VINTF_SID_REPLACE.of(this.#replace[s] ?? 0, 'PHYS_SID');
    return -1;
  }

  /** Virtual StreamID of a pair; -1 while it is disabled. */
  #virtSid(s: number): number {
    const match = this.#match[s] ?? 0;
    return (match & ENABLE) === 0 ? -1 : VINTF_SID_MATCH.of(match, 'VIRT_SID');
  }

  /** Enabled pairs: [virtual, physical] StreamID. */
  pairs(): [virtual: number, physical: number][] {
    const out: [number, number][] = [];
    for (let s = 0; s < this.#match.length; s++)
      if (this.#virtSid(s) >= 0) out.push([this.#virtSid(s), VINTF_SID_REPLACE.of(this.#replace[s] ?? 0, 'PHYS_SID')]);
    return out;
  }

  /** LVCMDQs in error, words of 32. */
  errorMap(word: number): number {
    let map = 0;
    for (const [l, queue] of this.slots) if (l >>> 5 === word && this.#host.inError(queue)) map |= 1 << (l & 31);
    return map >>> 0;
  }

  /** Any VCMDQ is in error. */
  get inError(): boolean {
    for (const queue of this.slots.values()) if (this.#host.inError(queue)) return true;
    return false;
  }

  /** Reads a register of the block; undefined: there is none. */
  read(offset: number): number | undefined {
    if (offset === VINTF_CONFIG.offset) return this.#config;
    if (offset === VINTF_STATUS.offset)
      return VINTF_STATUS.value({
        ENABLED: this.enabled ? 1 : 0,
        STATUS: this.inError ? 'VCMDQ_ERROR' : 'NO_ERROR',
        VI_NUM_LVCMDQ: this.slots.size,
      });
    const match = copyAt(offset, VINTF_SID_MATCH, this.#match.length);
    if (match >= 0) return this.#match[match];
    const replace = copyAt(offset, VINTF_SID_REPLACE, this.#replace.length);
    if (replace >= 0) return this.#replace[replace];
    const map = copyAt(offset, VINTF_LVCMDQ_ERR_MAP);
    return map >= 0 ? this.errorMap(map) : undefined;
  }

  /** Writes a register of the block. */
  write(offset: number, value: number): Ignored {
    if (offset === VINTF_CONFIG.offset) return this.#writeConfig((value & this.#configMask) >>> 0);
    const match = copyAt(offset, VINTF_SID_MATCH, this.#match.length);
    if (match >= 0) return this.#writeMatch(match, (value & this.#matchMask) >>> 0);
    const replace = copyAt(offset, VINTF_SID_REPLACE, this.#replace.length);
    if (replace >= 0) return this.#writeReplace(replace, (value & this.#replaceMask) >>> 0);
    return this.read(offset) === undefined ? 'undefined offset' : 'read-only';
  }

  #writeConfig(value: number): Ignored {
    const live = this.inUse;
    const before = this.#config;
    this.#config = value;
    if ((value & EN) === 0) {
      if (this.enabled && [...this.slots.values()].some((queue) => queue.enabled))
        violation(this.#context, 'CMDQV-8', `VINTF ${this.index} disabled while its VCMDQs are enabled`);
      this.#armed = false;
    } else if (!live) {
      this.#latched = value;
      this.#armed = this.#host.on || this.#context.options.earlyEnable === 'follows';
    } else this.#rewrite(value, before);
    this.#host.changed();
    return '';
  }

  /** EN stays, or comes back before STATUS followed. */
  #rewrite(value: number, before: number): void {
    const { options } = this.#context;
    if ((before & EN) === 0) this.#armed = this.#host.on || options.earlyEnable === 'follows';
    if (((value ^ this.#latched) & OWNERSHIP) === 0) return;
    violation(this.#context, 'CMDQV-13', `VINTF ${this.index}: VMID or HYP_OWN rewritten while enabled`);
    if (options.vintfRewrite === 'takes-effect') this.#latched = value;
  }

  #writeMatch(s: number, value: number): Ignored {
    this.#match[s] = value;
    const sid = this.#virtSid(s);
    for (let other = 0; sid >= 0 && other < this.#match.length; other++)
      if (other !== s && this.#virtSid(other) === sid)
        violation(this.#context, 'CMDQV-6', `VINTF ${this.index}: pairs ${other} and ${s} both match vSID ${hex(sid)}`);
    if (sid >= 0) this.#checkPhysical(s);
    return '';
  }

  /** Two VMs must not name one device. */
  #checkPhysical(s: number): void {
    const physical = VINTF_SID_REPLACE.of(this.#replace[s] ?? 0, 'PHYS_SID');
    for (const other of this.#host.vintfs)
      if (other !== this && other.pairs().some(([, sid]) => sid === physical))
        violation(
          this.#context,
          'CMDQV-6',
          `StreamID ${hex(physical)} is in a pair of VINTF ${other.index} and of VINTF ${this.index}`,
        );
  }

  #writeReplace(s: number, value: number): Ignored {
    if (this.#virtSid(s) >= 0 && value !== this.#replace[s])
      violation(this.#context, 'CMDQV-5', `VINTF ${this.index}: SID_REPLACE(${s}) written while SID_MATCH is enabled`);
    this.#replace[s] = value;
    return '';
  }
}

const hex = (value: number): string => `0x${value.toString(16)}`;
