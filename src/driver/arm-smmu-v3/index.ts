/** The Arm SMMUv3 driver, shaped as Linux's. */

export { CommandQueue, type CommandSink } from './command-queue.ts';
export { NestedDomain, PagingDomain, SvaDomain } from './domains.ts';
export { ArmSmmuDriver, type DriverExtras } from './driver.ts';
export { type EntryPlan, type EntryStep, type EntryWrite, type EntryWriter, planEntryUpdate } from './entry-writer.ts';
export { INHERITED } from './inherited.ts';
export type { DriverOptions, DriverSettings } from './options.ts';
export type { DriverParts } from './parts.ts';
export type { Quarantined } from './quarantine.ts';
export { QUIRK_NAMES, type QuirkChoice, type QuirkName } from './quirks.ts';
export type { Master, Smmu, SmmuImpl } from './smmu.ts';
export type { Hypervisor, VmidPolicy, VmidPolicyName } from './vmid-policy.ts';
export { Vsmmu, vsmmuOf } from './vsmmu.ts';
