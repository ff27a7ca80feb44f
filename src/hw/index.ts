/** Hardware: what a machine is made of, and the machine. */
export type { AtcEntry } from './atc.ts';
export type { AtsUnit, PageResponse, TranslationCompletion, TranslationRequest } from './ats.ts';
export type { BroadcastTlbi } from './broadcast.ts';
export * from './bus.ts';
export * from './config.ts';
export { ConfigError, configProblems } from './config-check.ts';
export { Dma, type DmaOptions, type DmaResult } from './dma.ts';
export { Endpoint, MAX_DMA } from './endpoint.ts';
export { GRACE, type GraceOptions, grace } from './grace.ts';
export {
  type CmdqvSetup,
  createMachine,
  type EndpointSetup,
  FIRST_IRQ,
  Machine,
  type MachineConfig,
  type SmmuSetup,
  twoSmmus,
  VIRT,
  type VirtOptions,
  virt,
} from './machine.ts';
export { Memory, type MemoryRegion, type StoreWatch } from './memory.ts';
export type * from './observer.ts';
export * from './presets.ts';
export type { PageRequest } from './pri-queue.ts';
export { type Choice, Schedule, type ScheduleConfig, ScheduleError, type ScheduleMode } from './schedule.ts';
export { Smmu } from './smmu.ts';
export * from './tegra241/index.ts';
export * from './transaction.ts';
export { VMID_MIN, VmidAllocator, VmidError, type VmidErrorCode, type VmidHolder, vmidMax } from './vmid.ts';
