/** The iommufd core: contexts with every ioctl typed and raw, and the VFIO devices that are bound to them. */
export type { AccessObject, AccessOps } from './access.ts';
export { Iommufd2024, type IommuOps2024, type ViommuAllocHelper, type ViommuOps2024 } from './api-2024.ts';
export type { Command, PointerField, TypedArgs } from './command.ts';
export { IommufdContext } from './context.ts';
export type { ContextOptions, Quirks } from './ctx.ts';
export type { DeviceObject } from './device.ts';
export { type FieldValues, IommufdError, UseAfterFree } from './errors.ts';
export type { EventFile, PollState } from './files.ts';
export { type HoldPolicyName, type HoldReport, removeIommu } from './hold.ts';
export type { MmapRequest, Vma } from './mmap.ts';
export type { IommufdObject, ObjectType } from './object.ts';
export { type IommufdParts, iommufdParts } from './parts.ts';
export {
  type Capability,
  type LockedPages,
  NO_MEMORY,
  PAGE_SIZE,
  type PageRun,
  type Process,
  type UserFile,
  type UserMemory,
} from './process.ts';
export { type DeviceDma, VfioDevice } from './vfio-device.ts';
