/** What a lab is made from, and the machine that follows from it. */
import { CMDQV_MAX_SIDS } from '../../spec/tegra241.ts';
import type { QuirkChoice, VmidPolicyName } from '../driver/arm-smmu-v3/index.ts';
import type { SmmuConfig } from '../hw/config.ts';
import { GRACE } from '../hw/grace.ts';
import { createMachine, type EndpointSetup, type Machine, VIRT } from '../hw/machine.ts';
import type { Observer } from '../hw/observer.ts';
import { graceSmmu, linuxNesting, mmu700, qemuVirt, smallVmid } from '../hw/presets.ts';
import { FOOTPRINT } from '../hw/registers.ts';
import type { ScheduleConfig } from '../hw/schedule.ts';
import type { CmdqvConfig } from '../hw/tegra241/config.ts';
import type { HoldPolicyName } from '../iommufd/index.ts';

/** SMMUs a lab can be made of. Each SMMU of `grace` has a Tegra241 CMDQV beside it; `mmu700` keeps the dirty state. */
export const LAB_PRESETS = { linuxNesting, qemuVirt, smallVmid, grace: graceSmmu, mmu700 } as const;
/** Names of {@link LAB_PRESETS}. */
export type LabPreset = keyof typeof LAB_PRESETS;
/** All VMID policies of the shipped driver. */
export const POLICIES: readonly VmidPolicyName[] = ['at-attach', 'viommu-only', 'at-domain-alloc', 'external'];

/** What a lab is made from: plain data, so that a case can be printed, saved and made again. */
export interface LabConfig {
  /** What each SMMU is. Default 'linuxNesting'; queues and caches are cut, so that making a lab is cheap. */
  readonly preset?: LabPreset;
  /** SMMUs, 1 to {@link LAB_LIMITS}.smmus. Default 2. */
  readonly smmus?: number;
  /** Devices behind each SMMU. Default 2. */
  readonly devices?: number;
  /** Processes of the host, `mm0` ..., for SVA. Default 0. */
  readonly processes?: number;
  /** Virtual machines, each with memory and an IO address space. Default 2. */
  readonly vms?: number;
  /** 'linear': 64 streams; 'two-level': 16 bits of StreamID, which is the PCI requester id. Default 'two-level'. */
  readonly streamTable?: 'linear' | 'two-level';
  /** What a device does before anybody binds it. Default 'dma': the DMA API's own domain. */
  readonly defaultDomain?: 'dma' | 'identity';
  /** Width of a VMID. Default: the preset's. */
  readonly vmidBits?: 8 | 16;
  /** Where the driver takes VMIDs from. Default 'at-attach'. */
  readonly policy?: VmidPolicyName;
  /** When hardware moves. Default eager. */
  readonly schedule?: ScheduleConfig;
  /** StreamID pairs of each VINTF of a `grace`, as log2. Default {@link SID_PAIRS_LOG2}. */
  readonly sidPairsLog2?: number;
  /** Entries of each Event queue, as log2: 1 to {@link LAB_LIMITS}.eventsLog2, which is the default. */
  readonly eventsLog2?: number;
  /** Devices have ATS. Default false. */
  readonly ats?: boolean;
  /** Devices have PRI too, where their SMMU has. Default false. */
  readonly pri?: boolean;
  /** Transactions of devices may stall, where their SMMU lets them. Default false. */
  readonly stalls?: boolean;
  /** StreamIDs of each device. Default 1. */
  readonly streams?: 1 | 2;
  /** Bits of a PASID that each device has. Default 0: none. */
  readonly pasidBits?: number;
  /** Linux 7.2's deviations of the driver that are on. Default: none. */
  readonly quirks?: QuirkChoice;
  /** Policy 'at-domain-alloc' too makes nested domains without a vIOMMU. Default false, as Linux 7.2. */
  readonly nestedWithoutViommu?: boolean;
  /** What a failed IOMMU_HWPT_INVALIDATE reports in entry_num (docs/deviations.md). Default 'kernel', as Linux 7.2. */
  readonly entryNum?: 'kernel' | 'uapi';
  /** One open /dev/iommu for all VMs, or one each, with every `vms`-th device bound to it. Default 'shared'. */
  readonly contexts?: 'shared' | 'per-vm';
  /** How a vIOMMU holds its physical IOMMU. Default 'raw', as Linux 7.2. */
  readonly iommuHold?: HoldPolicyName;
}

/** A case that names what its lab does not have, or asks for a lab that cannot be. */
export class CaseError extends RangeError {
  override readonly name = 'CaseError';
}

/** Entries of a lab's queues, as log2. */
const QUEUE_LOG2 = 8;
/** Entries of a Command queue, as log2: the fewest that the driver takes, so that indexes wrap in cases of some length. */
const COMMANDS_LOG2 = 7;
/** Largest topology. */
export const LAB_LIMITS = {
  smmus: 8,
  devices: 16,
  vms: 8,
  processes: 4,
  sidPairsLog2: Math.log2(CMDQV_MAX_SIDS),
  eventsLog2: QUEUE_LOG2,
} as const;

/** StreamID pairs of a VINTF, as log2, unless told. */
export const SID_PAIRS_LOG2 = 1;
/** VCMDQs and VINTFs of a `grace`: two queues for the host and for each of three VMs. */
const NUM_VCMDQ_LOG2 = 3;
const NUM_VINTF_LOG2 = 2;
/** StreamID bits with a two-level table: a PCI requester id. */
const TWO_LEVEL_SIDSIZE = 16;

/** StreamID bits with a linear table. */
const LINEAR_SIDSIZE = 6;
/** How far the second StreamID of a device lies from its first, in a linear table; else they are functions 0 and 1. */
const LINEAR_SECOND = 32;
const cache = (entries: number) => ({ entries, ways: 4, replacement: 'round-robin' }) as const;
/** Caches of a lab's SMMUs: large enough that nothing is evicted by a few devices. */
const TLB = { va: cache(128), ipa: cache(128), s1Tables: cache(64), s2Tables: cache(64) } as const;

/** One object for each kind of SMMU: what is derived from it is derived once. */
const configs = new Map<string, SmmuConfig>();

function smmuConfig(lab: LabConfig): SmmuConfig {
  const { preset = 'linuxNesting', vmidBits, streamTable, eventsLog2 = QUEUE_LOG2 } = lab;
  const key = `${preset} ${vmidBits} ${streamTable} ${eventsLog2}`;
  const known = configs.get(key);
  if (known !== undefined) return known;
  const config: SmmuConfig = LAB_PRESETS[preset];
  const linear = streamTable === 'linear';
  const made: SmmuConfig = {
    ...config,
    IDR0: {
      ...config.IDR0,
      ...(vmidBits === undefined ? {} : { VMID16: vmidBits === 8 ? 'BITS_8' : 'BITS_16' }),
      ...(linear ? { ST_LEVEL: 'LINEAR' } : {}),
    },
    IDR1: {
      ...config.IDR1,
      CMDQS: COMMANDS_LOG2,
      EVENTQS: eventsLog2,
      ...('PRIQS' in config.IDR1 ? { PRIQS: QUEUE_LOG2 } : {}),
      SIDSIZE: linear ? LINEAR_SIDSIZE : TWO_LEVEL_SIDSIZE,
    },
    options: { ...config.options, tlb: { ...config.options?.tlb, ...TLB } },
  };
  configs.set(key, made);
  return made;
}

/** Devices of one SMMU sit on one bus of their own. */
function endpoints(config: LabConfig): EndpointSetup[] {
  const { smmus = 2, devices = 2, ats = false, pri = false, stalls = false, pasidBits = 0, streamTable } = config;
  return Array.from({ length: smmus * devices }, (_, i) => {
    const smmu = Math.floor(i / devices);
    const slot = (i % devices) + 1;
    const bdf = (smmu << 8) | (slot << 3);
    const sid = streamTable === 'linear' ? slot : bdf;
    const second = sid + (streamTable === 'linear' ? LINEAR_SECOND : 1);
    const streamIds = config.streams === 2 ? [sid, second] : [sid];
    return {
      name: `d${i}`,
      streamIds,
      bdf,
      smmu,
      canWbs: true,
      ats,
      pri: ats && pri,
      canStall: stalls,
      ssidBits: pasidBits,
    };
  });
}

/** The CMDQV beside each SMMU; none: the preset has none. */
function cmdqvConfig({ preset, sidPairsLog2 = SID_PAIRS_LOG2 }: LabConfig): CmdqvConfig | undefined {
  if (preset !== 'grace') return undefined;
  return { param: { VER: 1, NUM_VCMDQ_LOG2, NUM_VINTF_LOG2, NUM_SID_PER_VM_LOG2: sidPairsLog2 } };
}

function checkConfig(config: LabConfig): void {
  for (const name of ['smmus', 'devices', 'vms'] as const) {
    const value = config[name] ?? 2;
    if (!Number.isInteger(value) || value < 1 || value > LAB_LIMITS[name])
      throw new CaseError(`${name}: ${value}, expected 1 to ${LAB_LIMITS[name]}`);
  }
  const processes = config.processes ?? 0;
  if (!Number.isInteger(processes) || processes < 0 || processes > LAB_LIMITS.processes)
    throw new CaseError(`processes: ${processes}, expected 0 to ${LAB_LIMITS.processes}`);
  const pairs = config.sidPairsLog2 ?? 0;
  if (!Number.isInteger(pairs) || pairs < 0 || pairs > LAB_LIMITS.sidPairsLog2)
    throw new CaseError(`sidPairsLog2: ${pairs}, expected 0 to ${LAB_LIMITS.sidPairsLog2}`);
  const events = config.eventsLog2 ?? 1;
  if (!Number.isInteger(events) || events < 1 || events > LAB_LIMITS.eventsLog2)
    throw new CaseError(`eventsLog2: ${events}, expected 1 to ${LAB_LIMITS.eventsLog2}`);
}

/** The machine of a configuration. @throws CaseError for a topology that is too large */
export function labMachine(config: LabConfig, observer?: Observer): Machine {
  checkConfig(config);
  const setup = smmuConfig(config);
  const cmdqv = cmdqvConfig(config);
  return createMachine({
    smmus: Array.from({ length: config.smmus ?? 2 }, (_, i) => ({
      config: setup,
      base: VIRT.smmu + BigInt(i * FOOTPRINT),
      ...(cmdqv === undefined ? {} : { cmdqv: { base: GRACE.cmdqv + BigInt(i) * GRACE.stride, config: cmdqv } }),
    })),
    endpoints: endpoints(config),
    ram: [VIRT.ram],
    // A case replays from its seed: choices are not kept unless asked for.
    ...(config.schedule === undefined ? {} : { schedule: { recordLimit: 0, ...config.schedule } }),
    ...(observer === undefined ? {} : { observer }),
  });
}
