import { type CpuFeatures, DEFAULT_CPU, DEFAULT_MAX_ORDER } from './probe.ts';
import { type QuirkChoice, type QuirkName, quirksOf } from './quirks.ts';
import type { Hypervisor, VmidPolicyName } from './vmid-policy.ts';

/** What may be chosen when a driver is made. */
export interface DriverSettings {
  /** Where VMIDs come from. Default 'at-attach'. */
  readonly vmidPolicy?: VmidPolicyName;
  /** Owner of the VMIDs; needed by 'external'. */
  readonly hypervisor?: Hypervisor;
  /** In 'at-domain-alloc': nested domains may also be made without a vIOMMU. Default false, as Linux 7.2. */
  readonly nestedWithoutViommu?: boolean;
  /** Linux 7.2's deviations from the rules. Default: none. */
  readonly quirks?: QuirkChoice;
  /**
   * `entry_num` after an invalidation entry that failed to convert: 'kernel' counts entries that were never issued, as
   * Linux does; 'uapi' counts only those issued, as the header promises. Default 'kernel'.
   */
  readonly entryNum?: 'kernel' | 'uapi';
  /** Page size of the kernel. Default 4096. */
  readonly pageSize?: CpuFeatures['pageSize'];
  readonly cpu?: Partial<CpuFeatures>;
  /** Largest block of the page allocator (MAX_PAGE_ORDER): caps queue sizes. Default 10. */
  readonly maxOrder?: number;
  /** Default false. */
  readonly disableMsiPolling?: boolean;
  /**
   * What to do with an SMMU that is on when it is probed. 'reset' (Linux 7.2): everything aborts and is set up anew.
   * 'kexec', 'kdump': its Stream table is adopted, so that DMA under way goes on until its device is claimed; after a
   * crash nobody listens to events. A table that is damaged is not adopted. Default 'reset'.
   */
  readonly adopt?: 'reset' | 'kexec' | 'kdump';
  /** Kind of the default domains. Default 'dma'. */
  readonly defaultDomain?: 'dma' | 'dma-fq' | 'identity';
}

/** The settings with their defaults filled in. */
export interface DriverOptions {
  readonly vmidPolicy: VmidPolicyName;
  readonly hypervisor: Hypervisor | null;
  readonly nestedWithoutViommu: boolean;
  readonly quirks: ReadonlySet<QuirkName>;
  readonly entryNum: 'kernel' | 'uapi';
  readonly cpu: CpuFeatures;
  readonly maxOrder: number;
  readonly disableMsiPolling: boolean;
  readonly defaultDomain: 'dma' | 'dma-fq' | 'identity';
  readonly adopt: 'reset' | 'kexec' | 'kdump';
}

/** Fills defaults in. @throws RangeError for an unknown quirk, or policy 'external' without a hypervisor */
export function optionsOf(settings: DriverSettings): DriverOptions {
  const vmidPolicy = settings.vmidPolicy ?? 'at-attach';
  if (vmidPolicy === 'external' && settings.hypervisor === undefined)
    throw new RangeError("VMID policy 'external' needs a hypervisor");
  const pageSize = settings.pageSize ?? settings.cpu?.pageSize ?? DEFAULT_CPU.pageSize;
  return {
    vmidPolicy,
    hypervisor: settings.hypervisor ?? null,
    nestedWithoutViommu: settings.nestedWithoutViommu ?? false,
    quirks: quirksOf(settings.quirks),
    entryNum: settings.entryNum ?? 'kernel',
    cpu: { ...DEFAULT_CPU, ...settings.cpu, pageSize },
    maxOrder: settings.maxOrder ?? DEFAULT_MAX_ORDER,
    disableMsiPolling: settings.disableMsiPolling ?? false,
    defaultDomain: settings.defaultDomain ?? 'dma',
    adopt: settings.adopt ?? 'reset',
  };
}
