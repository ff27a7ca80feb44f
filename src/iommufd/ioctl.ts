/** The way of an ioctl: request number, sizes, command, handler, answer (iommufd_fops_ioctl). */
import {
  type AnyStruct,
  IOMMUFD_CMD_BASE,
  IOMMUFD_IOCTLS,
  type IommufdIoctlName,
  type Struct,
} from '../../spec/uapi.ts';
import { KernelError } from '../driver/kernel.ts';
import type { Command, PointerField, TypedArgs } from './command.ts';
import type { IommufdCtx } from './ctx.ts';
import { getHwInfo } from './device.ts';
import { hwptGetDirtyBitmap, hwptSetDirtyTracking } from './dirty.ts';
import { type FieldValues, fail, IommufdError } from './errors.ts';
import { faultQueueAlloc } from './fault.ts';
import { hwQueueAlloc } from './hw-queue.ts';
import { hwptAlloc } from './hwpt.ts';
import { hwptInvalidate } from './invalidate.ts';
import {
  ioasAlloc,
  ioasAllowIovas,
  ioasChangeProcess,
  ioasCopy,
  ioasIovaRanges,
  ioasMap,
  ioasMapFile,
  ioasUnmap,
} from './ioas.ts';
import { destroy, option, vfioIoas } from './option.ts';
import { copyStructFromUser, pointerInto, pointerTo, type Responder, Ucmd, type UserPointer } from './ucmd.ts';
import { vdeviceAlloc } from './vdevice.ts';
import { veventqAlloc } from './veventq.ts';
import { viommuAlloc } from './viommu.ts';

type Handler<K extends IommufdIoctlName> = (ctx: IommufdCtx, ucmd: Ucmd<Command<K>>) => void;
type HandlerTable = { readonly [K in IommufdIoctlName]: Handler<K> };

const HANDLERS: HandlerTable = {
  IOMMU_DESTROY: destroy,
  IOMMU_IOAS_ALLOC: ioasAlloc,
  IOMMU_IOAS_ALLOW_IOVAS: ioasAllowIovas,
  IOMMU_IOAS_COPY: ioasCopy,
  IOMMU_IOAS_IOVA_RANGES: ioasIovaRanges,
  IOMMU_IOAS_MAP: ioasMap,
  IOMMU_IOAS_UNMAP: ioasUnmap,
  IOMMU_OPTION: option,
  IOMMU_VFIO_IOAS: vfioIoas,
  IOMMU_HWPT_ALLOC: hwptAlloc,
  IOMMU_GET_HW_INFO: getHwInfo,
  IOMMU_HWPT_SET_DIRTY_TRACKING: hwptSetDirtyTracking,
  IOMMU_HWPT_GET_DIRTY_BITMAP: hwptGetDirtyBitmap,
  IOMMU_HWPT_INVALIDATE: hwptInvalidate,
  IOMMU_FAULT_QUEUE_ALLOC: faultQueueAlloc,
  IOMMU_IOAS_MAP_FILE: ioasMapFile,
  IOMMU_VIOMMU_ALLOC: viommuAlloc,
  IOMMU_VDEVICE_ALLOC: vdeviceAlloc,
  IOMMU_IOAS_CHANGE_PROCESS: ioasChangeProcess,
  IOMMU_VEVENTQ_ALLOC: veventqAlloc,
  IOMMU_HW_QUEUE_ALLOC: hwQueueAlloc,
};

/** Ioctls by the low byte of their number. */
const BY_NR: ReadonlyMap<number, IommufdIoctlName> = new Map(
  Object.values(IOMMUFD_IOCTLS).map((ioctl) => [ioctl.nr, ioctl.name as IommufdIoctlName]),
);

/** Runs a handler; what it made is published, or taken apart again. */
function run<K extends IommufdIoctlName>(ctx: IommufdCtx, name: K, ucmd: Ucmd<Command<K>>): void {
  if (ctx.closed) fail('EBADF', 'the iommufd is closed');
  const handler: Handler<K> = HANDLERS[name];
  // A close meanwhile waits for this call.
  ctx.getFile();
  try {
    handler(ctx, ucmd);
    if (ucmd.newObject !== undefined) ctx.objects.finalize(ucmd.newObject);
  } catch (error) {
    if (ucmd.newObject !== undefined) ctx.parts.unwind(ctx, ucmd.newObject);
    throw error;
  } finally {
    ctx.putFile();
  }
}

/** Runs `body`; a kernel error comes out with the ioctl's name and what had been copied back. */
function withErrors<T>(ctx: IommufdCtx, name: string, outputs: () => FieldValues | undefined, body: () => T): T {
  try {
    return body();
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    throw new IommufdError(error, name, outputs());
  } finally {
    ctx.kernel.runInterrupts();
  }
}

const zeros = new Map<AnyStruct, FieldValues>();

/** The command of a zeroed struct, `size` set. */
function zeroCommand(struct: AnyStruct): FieldValues {
  let zero = zeros.get(struct);
  if (zero === undefined) {
    const bytes = new Uint8Array(struct.bytes);
    zero = { ...struct.decode(bytes), size: struct.bytes } as FieldValues;
    zeros.set(struct, zero);
  }
  return zero;
}

const POINTER_FIELDS: readonly PointerField[] = ['data_uptr', 'allowed_iovas', 'data'];

/** A pointer field that was given as a buffer: any address but 0. */
const BUFFER_ADDRESS = 1n;

/**
 * Runs an ioctl on typed arguments. @returns the command with its outputs
 * @throws IommufdError with the kernel's errno
 */
export function ioctlTyped<K extends IommufdIoctlName>(ctx: IommufdCtx, name: K, args: TypedArgs<K>): Command<K> {
  const { struct } = IOMMUFD_IOCTLS[name];
  const cmd: Record<string, unknown> = { ...zeroCommand(struct), ...args };
  const buffers: Partial<Record<PointerField, Uint8Array>> = {};
  for (const field of POINTER_FIELDS) {
    const value = cmd[field];
    if (!(value instanceof Uint8Array)) continue;
    buffers[field] = value;
    cmd[field] = BUFFER_ADDRESS;
    if (field === 'data_uptr' && 'data_len' in cmd && !('data_len' in args)) cmd.data_len = value.length;
  }
  let copied: Record<string, unknown> | undefined;
  const responder: Responder = {
    whole: () => {
      ctx.kernel.userCopy('to-user:response');
      copied = { ...cmd };
    },
    field: (field) => {
      ctx.kernel.userCopy('to-user:response');
      copied = { ...copied, [field]: cmd[field] };
    },
    pointer: (field) => {
      const buffer = buffers[field as PointerField];
      if (buffer !== undefined) return pointerInto(ctx.kernel, buffer, `${name}.${field}`);
      return pointerTo(ctx.kernel, ctx.process.memory, cmd[field] as bigint, `${name}.${field}`);
    },
  };
  return withErrors(
    ctx,
    name,
    () => copied as FieldValues | undefined,
    () => {
      const command = cmd as Command<K>;
      run(ctx, name, new Ucmd(command, responder));
      return command;
    },
  );
}

/** The name of the ioctl of a request number; its other bits must be right too. @throws KernelError ENOTTY */
export function ioctlName(request: number): IommufdIoctlName {
  const nr = request & 0xff;
  const name = BY_NR.get(nr);
  if (nr < IOMMUFD_CMD_BASE || name === undefined)
    fail('ENOTTY', `number 0x${nr.toString(16)} is VFIO's or nobody's, and there is no VFIO container here`);
  return name;
}

/**
 * Runs an ioctl on the bytes of its struct, which takes the outputs.
 * @throws IommufdError with the kernel's errno
 */
export function ioctlRaw(ctx: IommufdCtx, request: number, arg: UserPointer): void {
  let name: IommufdIoctlName | undefined;
  withErrors(
    ctx,
    `ioctl 0x${request.toString(16)}`,
    () => undefined,
    () => {
      name = ioctlName(request);
      const userSize = new DataView(arg.read(0, 4).buffer).getUint32(0, true);
      const ioctl = IOMMUFD_IOCTLS[name];
      if (ioctl.request !== request) fail('ENOTTY', `${name} is 0x${ioctl.request.toString(16)}`);
      if (userSize < ioctl.minBytes) fail('EINVAL', `${name}: size ${userSize}, at least ${ioctl.minBytes}`);
      const bytes = copyStructFromUser(arg, 0, userSize, ioctl.struct.bytes);
      runRaw(ctx, name, bytes, arg, userSize);
    },
  );
}

function runRaw<K extends IommufdIoctlName>(
  ctx: IommufdCtx,
  name: K,
  bytes: Uint8Array,
  arg: UserPointer,
  userSize: number,
): void {
  const struct = IOMMUFD_IOCTLS[name].struct as AnyStruct as Struct;
  const cmd = { ...struct.decode(bytes) } as Command<K>;
  const values = cmd as FieldValues;
  const responder: Responder = {
    whole: () => {
      for (const field of struct.names) struct.set(bytes, field, values[field] as number);
      arg.write(0, bytes.subarray(0, Math.min(userSize, struct.bytes)));
    },
    field: (field) => {
      struct.set(bytes, field, values[field] as number);
      const { offset } = struct.fields[field] ?? { offset: 0 };
      arg.write(offset, bytes.subarray(offset, struct.endOf(field)));
    },
    pointer: (field) => pointerTo(ctx.kernel, ctx.process.memory, values[field] as bigint, `${name}.${field}`),
  };
  run(ctx, name, new Ucmd(cmd, responder));
}
