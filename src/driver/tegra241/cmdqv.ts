/** The companion of an SMMU as the driver keeps it (kernel: `struct tegra241_cmdqv`, tegra241-cmdqv.c). */
import {
  CMD_ATC_INV,
  CMD_TLBI_NH_ASID,
  CMD_TLBI_NH_VA,
  CMDQV_CMDQ_ALLOC,
  CMDQV_CMDQ_ERR_MAP,
  CMDQV_CONFIG,
  CMDQV_MAX_SIDS,
  CMDQV_MAX_VCMDQS,
  CMDQV_MAX_VINTFS,
  CMDQV_PARAM,
  CMDQV_STATUS,
  CMDQV_VINTF_ERR_MAP,
  COMMAND_BYTES,
  opcodeOf,
  type Register,
  VCMDQ_CONS,
  VCMDQ_GERROR,
  VCMDQ_GERRORN,
  VCMDQ_PROD,
  VCMDQ_STATUS,
  VINTF_CONFIG,
  VINTF_LVCMDQ_ERR_MAP,
  VINTF_STATUS,
  type Words,
} from '../../../spec/index.ts';
import { HW_INFO_TYPE, VIOMMU_TYPE } from '../../../spec/uapi/constants.ts';
import { iommu_hw_info_tegra241_cmdqv } from '../../../spec/uapi/data-structs.ts';
import type { Pa, SmmuNode } from '../../hw/bus.ts';
import { CommandQueue, type CommandSink } from '../arm-smmu-v3/command-queue.ts';
import type { Settling } from '../arm-smmu-v3/quarantine.ts';
import type { Smmu, SmmuImpl } from '../arm-smmu-v3/smmu.ts';
import { allocRing } from '../arm-smmu-v3/smmu-probe.ts';
import type { Vsmmu } from '../arm-smmu-v3/vsmmu.ts';
import type { IommufdViommu, UserData, ViommuOps } from '../iommu/ops.ts';
import { VIOMMU_CORE_SIZE } from '../iommu/ops.ts';
import { type IdAllocator, type Kernel, KernelError } from '../kernel.ts';
import { CmdqvRegisters } from './registers.ts';
import { type UserVintf, vsmmuInit } from './user.ts';
import type { Vcmdq, Vintf } from './vintf.ts';

/** Module parameters, and the CPU that the driver runs on. */
export interface Tegra241Options {
  /** disable_cmdqv: switch it off and do without. */
  readonly disable?: boolean;
  /** bypass_vcmdq: bring it up, and issue the kernel's own commands on the SMMU's queue. */
  readonly bypass?: boolean;
  /** smp_processor_id(): chooses the queue. Default: always CPU 0. */
  readonly cpu?: () => number;
}

/** Bytes that the driver adds to the core's vIOMMU: `struct arm_vsmmu` and the VINTF's own. */
const VINTF_EXTRA = 96;

/** Words of the error maps, highest first, as the ISR reads them. */
const HIGH_TO_LOW = [3, 2, 1, 0] as const;

/** Whether a queue without HYP_OWN takes a command (`tegra241_guest_vcmdq_supports_cmd`). CMD_SYNC is not asked for. */
export function guestSupports(command: Words): boolean {
  const opcode = opcodeOf(command);
  return opcode === CMD_TLBI_NH_ASID.opcode || opcode === CMD_TLBI_NH_VA.opcode || opcode === CMD_ATC_INV.opcode;
}

/** What PARAM says. */
interface Counts {
  readonly version: number;
  readonly vintfs: number;
  readonly lvcmdqs: number;
  readonly sids: number;
}

/** See the module comment. */
export class Tegra241Cmdqv implements SmmuImpl {
  readonly name: string;
  readonly regs: CmdqvRegisters;
  readonly counts: Counts;
  /** VINTFs of VMs by index; the slot is empty before and after. */
  readonly users = new Map<number, UserVintf>();
  readonly vintfIds: IdAllocator;
  readonly viommuType = VIOMMU_TYPE.TEGRA241_CMDQV;
  /** The kernel's own VINTF; null before its structures exist. */
  vintf0: Vintf | null = null;
  /** VINTFs and VCMDQs that did not disable, by the address of their STATUS. */
  readonly #stuck = new Map<Pa, Settling>();
  readonly #kernel: Kernel;
  readonly #options: Tegra241Options;

  constructor(kernel: Kernel, node: SmmuNode, regs: CmdqvRegisters, counts: Counts, options: Tegra241Options) {
    this.name = `${node.name}: tegra241_cmdqv`;
    this.#kernel = kernel;
    this.#options = options;
    this.regs = regs;
    this.counts = counts;
    this.vintfIds = kernel.ids('vintf', 0, counts.vintfs - 1);
  }

  /** The kernel's queues, and what else a given-up VMID has to wait for. */
  get queues(): Settling[] {
    const own = (this.vintf0?.queues ?? []).flatMap((queue) => (queue?.cmdq ? [queue.cmdq] : []));
    return [...own, ...this.#stuck.values()];
  }

  /** A VINTF did not disable: hardware may still use its VMID. */
  stuckVintf(index: number): void {
    this.#doubt(VINTF_STATUS, VINTF_STATUS.bit('ENABLED'), this.regs.vintf(index, VINTF_STATUS));
  }

  /** A VCMDQ did not stop: hardware may still fetch from its memory. Asked in the global window: it is unmapped by now. */
  stuckQueue(q: number): void {
    this.#doubt(VCMDQ_STATUS, VCMDQ_STATUS.bit('ENABLED'), this.regs.vcmdq(q, VCMDQ_STATUS));
  }

  /** Counts as under way until STATUS says otherwise. */
  #doubt(status: Register, enabled: number, at: Pa): void {
    const settled = (): boolean => {
      const off = (this.regs.read32(status, at) & enabled) === 0;
      if (off) this.#stuck.delete(at);
      return off;
    };
    this.#stuck.set(at, {
      get quiet() {
        return settled();
      },
    });
  }

  /** VINTF0 and its queues (`tegra241_cmdqv_init_structures`). @throws KernelError ENOMEM */
  initStructures(smmu: Smmu): void {
    const { lvcmdqs } = this.counts;
    const index = this.vintfIds.alloc();
    const vintf = this.newVintf(smmu, index, 0);
    try {
      for (let l = 0; l < lvcmdqs; l++) vintf.queues[l] = this.#ownQueue(vintf, l);
    } catch (error) {
      this.#freeQueues(vintf);
      this.vintfIds.free(index);
      throw error;
    }
    this.vintf0 = vintf;
  }

  /** A VINTF without queues, not yet in hardware. @throws KernelError ENOMEM */
  newVintf(smmu: Smmu, index: number, vmid: number): Vintf {
    this.#kernel.alloc('lvcmdqs');
    const { lvcmdqs, sids } = this.counts;
    return {
      index,
      smmu,
      regs: this.regs,
      vmid,
      hypOwn: false,
      enabled: false,
      queues: Array.from({ length: lvcmdqs }, () => null),
      queuesLock: this.#kernel.lock(`${smmu.name}:vintf${index}:lvcmdqs`),
      sids: this.#kernel.ids('vsid', 0, sids - 1),
      numSids: sids,
      pairs: new Map(),
    };
  }

  /** Number of LVCMDQ l of VINTF v among all: every VINTF has its equal share. */
  globalNumber(v: number, l: number): number {
    return v * this.counts.lvcmdqs + l;
  }

  #ownQueue(vintf: Vintf, lvcmdq: number): Vcmdq {
    const { smmu } = vintf;
    this.#kernel.alloc('vcmdq');
    const ring = allocRing(this.#kernel, 'vcmdq', smmu.features.cmdqLog2, COMMAND_BYTES);
    const q = this.globalNumber(vintf.index, lvcmdq);
    const cmdq = new CommandQueue(this.#kernel, {
      name: `${smmu.name}: vcmdq${q}`,
      ...ring,
      prodReg: this.regs.lvcmdq(vintf.index, lvcmdq, VCMDQ_PROD),
      consReg: this.regs.lvcmdq(vintf.index, lvcmdq, VCMDQ_CONS),
      signal: 'SIG_NONE',
      supports: (command) => vintf.hypOwn || guestSupports(command),
      onQuiet: () => smmu.quarantine.settle(smmu),
    });
    return { vintf, lvcmdq, q, base: ring.base, log2size: ring.log2size, cmdq, enabled: false };
  }

  #freeQueues(vintf: Vintf): void {
    for (const [l, queue] of vintf.queues.entries()) {
      if (queue === null) continue;
      this.#kernel.freePages('vcmdq', queue.base);
      vintf.queues[l] = null;
    }
  }

  /**
   * The block, the allocation table, VINTF0 (`tegra241_cmdqv_hw_reset`). Linux has no answer to a reset in operation: it
   * unmaps queues that run, and leaves VMs without theirs. Here everything is switched off in order first, and what VMs
   * have is set up again; they enable their queues anew.
   * @throws KernelError ETIMEDOUT
   */
  deviceReset(smmu: Smmu): void {
    const { regs, counts, vintf0 } = this;
    if (vintf0 === null) throw new Error('reset of a CMDQV without structures');
    const { vintf } = smmu.parts;
    const orderly = !smmu.options.quirks.has('cmdqv-reset-in-operation');
    const vms = orderly ? [...this.users.values()] : [];
    for (const user of vms) vintf.hwDeinit(user.vintf);
    if (orderly && vintf0.enabled) vintf.hwDeinit(vintf0);
    const EN = CMDQV_CONFIG.bit('CMDQV_EN');
    const config = regs.read32(CMDQV_CONFIG, regs.global(CMDQV_CONFIG));
    if (orderly && (config & EN) !== 0 && !vintf0.enabled) this.#endForeign(smmu);
    this.#configure(config & ~EN);
    this.#configure(config | EN);
    for (let v = 0; v < counts.vintfs; v++)
      for (let l = 0; l < counts.lvcmdqs; l++) {
        const at = regs.global(CMDQV_CMDQ_ALLOC, this.globalNumber(v, l));
        regs.write32Relaxed(CMDQV_CMDQ_ALLOC, at, CMDQV_CMDQ_ALLOC.value({ VINTF: v, LVCMDQ: l }));
      }
    vintf.hwInit(vintf0, true);
    for (const user of vms) vintf.hwInit(user.vintf, false);
  }

  /**
   * VINTFs that the driver before left on, and their queues, are taken apart in order: its VMs are gone, and VINTF0 is
   * about to be this driver's. The VMID of one that does not disable stays reserved until it does.
   */
  #endForeign(smmu: Smmu): void {
    const { regs, counts } = this;
    const { vintf: part, vmidPolicy } = smmu.parts;
    for (let v = counts.vintfs - 1; v >= 0; v--) {
      const config = regs.read32(VINTF_CONFIG, regs.vintf(v, VINTF_CONFIG));
      const status = regs.read32(VINTF_STATUS, regs.vintf(v, VINTF_STATUS));
      if ((config & VINTF_CONFIG.bit('EN')) === 0 && (status & VINTF_STATUS.bit('ENABLED')) === 0) continue;
      const vmid = VINTF_CONFIG.of(config, 'VMID');
      const foreign = this.newVintf(smmu, v, vmid);
      for (let l = 0; l < counts.lvcmdqs; l++) {
        const q = this.globalNumber(v, l);
        const alloc = regs.read32(CMDQV_CMDQ_ALLOC, regs.global(CMDQV_CMDQ_ALLOC, q));
        if ((alloc & CMDQV_CMDQ_ALLOC.bit('ALLOCATED')) !== 0)
          foreign.queues[l] = { vintf: foreign, lvcmdq: l, q, base: 0n, log2size: 0, cmdq: null, enabled: true };
      }
      if (part.hwDeinit(foreign)) continue;
      this.stuckVintf(v);
      if (vmid === 0 || smmu.inherited.vmids.includes(vmid)) continue;
      vmidPolicy.adopt(smmu, vmid);
      vmidPolicy.disown(smmu, vmid);
    }
  }

  #configure(value: number): void {
    const { regs } = this;
    const config = { register: CMDQV_CONFIG, at: regs.global(CMDQV_CONFIG) };
    const status = { register: CMDQV_STATUS, at: regs.global(CMDQV_STATUS) };
    if (!regs.configure('cmdqv', this.name, config, status, value))
      throw new KernelError('ETIMEDOUT', `${this.name}: STATUS does not follow EN`);
  }

  /** A queue of VINTF0, by CPU; null: the SMMU's own (`tegra241_cmdqv_get_cmdq`). */
  getSecondaryQueue(_smmu: Smmu, first: Words): CommandSink | null {
    const { vintf0, counts } = this;
    if (this.#options.bypass === true || vintf0 === null || !vintf0.enabled) return null;
    const queue = vintf0.queues[(this.#options.cpu?.() ?? 0) % counts.lvcmdqs];
    if (!queue?.enabled || queue.cmdq === null) return null;
    return queue.cmdq.supports(first) ? queue.cmdq : null;
  }

  /** `tegra241_cmdqv_hw_info` */
  hwInfo(_smmu: Smmu, type: number): { readonly type: number; readonly data: Uint8Array } | null {
    if (type !== HW_INFO_TYPE.TEGRA241_CMDQV) return null;
    const { version, lvcmdqs, sids } = this.counts;
    const data = iommu_hw_info_tegra241_cmdqv.encode({
      version,
      log2vcmdqs: Math.log2(lvcmdqs),
      log2vsids: Math.log2(sids),
    });
    return { type, data };
  }

  getViommuSize(): number {
    return VIOMMU_CORE_SIZE + VINTF_EXTRA;
  }

  vsmmuInit(vsmmu: Vsmmu, viommu: IommufdViommu, userData: UserData | null, shared: ViommuOps): void {
    vsmmuInit(this, vsmmu, viommu, userData, shared);
  }

  /** VINTF0 is the last one (`tegra241_cmdqv_remove`). */
  deviceRemove(smmu: Smmu): void {
    if (this.vintf0 !== null) smmu.parts.vintf.hwDeinit(this.vintf0);
  }

  /** Every VINTF off, those of VMs first; they keep what {@link deviceReset} sets up again. */
  deviceSuspend(smmu: Smmu): void {
    for (const user of this.users.values()) smmu.parts.vintf.hwDeinit(user.vintf);
    if (this.vintf0 !== null) smmu.parts.vintf.hwDeinit(this.vintf0);
  }

  /** A reset has switched everything off. */
  deviceLost(): void {
    const all = [...[...this.users.values()].map(({ vintf }) => vintf), ...(this.vintf0 === null ? [] : [this.vintf0])];
    for (const vintf of all) {
      vintf.enabled = false;
      for (const queue of vintf.queues) if (queue !== null) queue.enabled = false;
    }
    this.#stuck.clear();
  }

  /** Memory of a CMDQV that is off, or whose SMMU is. */
  freeStructures(): void {
    if (this.vintf0 === null) return;
    this.#freeQueues(this.vintf0);
    this.vintfIds.free(this.vintf0.index);
    this.vintf0 = null;
  }

  /**
   * An edge of the interrupt (`tegra241_cmdqv_isr`). The kernel's own queues are seen to at once, because a CMD_SYNC may
   * be waited for; what VMs are told is kept for {@link report}.
   */
  interrupt(): void {
    const { regs } = this;
    const vintfMap = [1, 0].map((n) => regs.read32(CMDQV_VINTF_ERR_MAP, regs.global(CMDQV_VINTF_ERR_MAP, n)));
    const queueMap = HIGH_TO_LOW.map((n) => regs.read32(CMDQV_CMDQ_ERR_MAP, regs.global(CMDQV_CMDQ_ERR_MAP, n)));
    this.#kernel.log(
      'warn',
      `${this.name}: unexpected error reported. vintf_map: ${vintfMap.map(hex8).join(' ')}, vcmdq_map: ${queueMap.map(hex8).join(' ')}`,
    );
    const [high = 0, low = 0] = vintfMap;
    for (let v = 0; v < this.counts.vintfs; v++) {
      if ((((v < 32 ? low : high) >>> (v & 31)) & 1) === 0) continue;
      const user = this.users.get(v);
      if (v === 0) this.#handleOwnErrors();
      else if (user !== undefined) user.errorMap = this.#lvcmdqErrors(v);
    }
  }

  /** Tells VMs of their errors; takes iommufd's locks, so not from {@link interrupt}. */
  report(): void {
    for (const user of [...this.users.values()]) user.vintf.smmu.parts.vintfUser.report(user);
  }

  #lvcmdqErrors(v: number): [bigint, bigint] {
    // Two words of the map at a time.
    const at = (n: number): Pa => this.regs.vintf(v, VINTF_LVCMDQ_ERR_MAP, 2 * n);
    return [this.regs.read64(VINTF_LVCMDQ_ERR_MAP, at(0)), this.regs.read64(VINTF_LVCMDQ_ERR_MAP, at(1))];
  }

  /** `tegra241_vintf0_handle_error` */
  #handleOwnErrors(): void {
    const map = this.#lvcmdqErrors(0);
    for (const queue of this.vintf0?.queues ?? []) {
      if (queue === null || (((map[queue.lvcmdq >>> 6] ?? 0n) >> BigInt(queue.lvcmdq & 63)) & 1n) === 0n) continue;
      const { regs } = this;
      const gerror = regs.read32(VCMDQ_GERROR, regs.lvcmdq(0, queue.lvcmdq, VCMDQ_GERROR));
      queue.cmdq?.skipError();
      regs.write32(VCMDQ_GERRORN, regs.lvcmdq(0, queue.lvcmdq, VCMDQ_GERRORN), gerror);
    }
  }
}

const hex8 = (value: number): string => value.toString(16).padStart(8, '0');

/** Whether PARAM describes something that the register layout can hold; all ones means that nothing answered. */
const plausible = (param: number): boolean => {
  const vcmdqs = CMDQV_PARAM.of(param, 'NUM_VCMDQ_LOG2');
  const vintfs = CMDQV_PARAM.of(param, 'NUM_VINTF_LOG2');
  return (
    2 ** vcmdqs <= CMDQV_MAX_VCMDQS &&
    2 ** vintfs <= CMDQV_MAX_VINTFS &&
    2 ** CMDQV_PARAM.of(param, 'NUM_SID_PER_VM_LOG2') <= CMDQV_MAX_SIDS &&
    vintfs <= vcmdqs
  );
};

/**
 * Looks for the CMDQV beside an SMMU (`tegra241_cmdqv_probe`). Whatever goes wrong here, the SMMU does without.
 * @returns how to probe, for the driver's `impl`
 */
export function tegra241Impl(options: Tegra241Options = {}): (kernel: Kernel, node: SmmuNode) => SmmuImpl | null {
  return (kernel, node) => {
    if (node.cmdqv === undefined) return null;
    const fallBack = (why: string): null => {
      kernel.log('info', `${node.name}: ${why}. Falling back to standard SMMU CMDQ`);
      return null;
    };
    const regs = new CmdqvRegisters(kernel, node.cmdqv.base);
    const config = regs.read32(CMDQV_CONFIG, regs.global(CMDQV_CONFIG));
    if (options.disable === true) {
      regs.write32(CMDQV_CONFIG, regs.global(CMDQV_CONFIG), config & ~CMDQV_CONFIG.bit('CMDQV_EN'));
      return fallBack('Detected disable_cmdqv=true');
    }
    const param = regs.read32(CMDQV_PARAM, regs.global(CMDQV_PARAM));
    if (!plausible(param)) return fallBack(`PARAM 0x${hex8(param)} describes no CMDQV`);
    try {
      kernel.alloc('cmdqv');
    } catch (error) {
      if (error instanceof KernelError) return fallBack(error.message);
      throw error;
    }
    const vintfs = 2 ** CMDQV_PARAM.of(param, 'NUM_VINTF_LOG2');
    const counts: Counts = {
      version: CMDQV_PARAM.of(param, 'VER'),
      vintfs,
      lvcmdqs: 2 ** CMDQV_PARAM.of(param, 'NUM_VCMDQ_LOG2') / vintfs,
      sids: 2 ** CMDQV_PARAM.of(param, 'NUM_SID_PER_VM_LOG2'),
    };
    const cmdqv = new Tegra241Cmdqv(kernel, node, regs, counts, options);
    kernel.requestIrq(`${node.name}:cmdqv`, node.cmdqv.irq, () => cmdqv.interrupt(), 'hard');
    kernel.requestIrq(`${node.name}:cmdqv-report`, node.cmdqv.irq, () => cmdqv.report());
    return cmdqv;
  };
}
