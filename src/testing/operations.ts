/**
 * Operations over the whole stack as plain data, and how one is carried out. Objects are named, never numbered: an
 * operation that is taken out of a sequence leaves the meaning of the others alone, so sequences shrink well. A name that
 * nothing has stands for an id that nothing has, and the answer is the kernel's.
 */
import {
  CMD_CFGI_CD,
  CMD_CFGI_CD_ALL,
  CMD_TLBI_NH_ALL,
  CMD_TLBI_NH_ASID,
  CMD_TLBI_NSNH_ALL,
  type Words,
} from '../../spec/index.ts';
import { HWPT_ALLOC_FLAGS, HWPT_DATA_TYPE, HWPT_INVALIDATE_DATA_TYPE, VIOMMU_TYPE } from '../../spec/uapi/constants.ts';
import { type Errno, KernelError } from '../driver/kernel.ts';
import { type IommufdContext, IommufdError } from '../iommufd/index.ts';
import { FIRST_DATA_PAGE, GUEST_PAGES, guestAddress, readMark, type VsteMode, vste } from './guest.ts';
import { CaseError, type Handle, type Lab } from './lab.ts';

/** A command of a guest's, by name; `vsid` and `asid` where it has one. */
export interface GuestCommand {
  readonly command: 'NSNH_ALL' | 'NH_ALL' | 'NH_ASID' | 'CFGI_CD' | 'CFGI_CD_ALL';
  readonly vsid?: number;
  readonly asid?: number;
}

/** What an operation does. `as` names what it makes; `dev`, `ioas`, `parent`, `on`, `to`, `viommu` name what it uses. */
export type Operation =
  | { readonly op: 'ioasAlloc'; readonly as: string }
  /** Maps pages of a VM's memory, from its page `from` on, at IPA page `page`. */
  | {
      readonly op: 'map';
      readonly ioas: string;
      readonly vm: string;
      readonly page: number;
      readonly from: number;
      readonly pages: number;
      readonly readonly?: boolean;
    }
  | { readonly op: 'unmap'; readonly ioas: string; readonly page: number; readonly pages: number }
  | {
      readonly op: 'hwptAlloc';
      readonly as: string;
      readonly dev: string;
      readonly ioas: string;
      readonly nestParent?: boolean;
    }
  | { readonly op: 'viommuAlloc'; readonly as: string; readonly dev: string; readonly parent: string }
  | {
      readonly op: 'vdeviceAlloc';
      readonly as: string;
      readonly dev: string;
      readonly viommu: string;
      readonly vsid: number;
    }
  /** A nested HWPT on a vIOMMU, or on a nesting parent without one. */
  | {
      readonly op: 'nestedAlloc';
      readonly as: string;
      readonly dev: string;
      readonly on: string;
      readonly vste: VsteMode;
      readonly cd?: number;
      readonly ats?: boolean;
    }
  /** Attaches a device, or moves it if it is attached. */
  | { readonly op: 'attach'; readonly dev: string; readonly to: string }
  | { readonly op: 'detach'; readonly dev: string }
  | { readonly op: 'bind'; readonly dev: string }
  /** Detach and unbind: close() of the device, or its hot-unplug. */
  | { readonly op: 'unbind'; readonly dev: string }
  | { readonly op: 'destroy'; readonly name: string }
  | { readonly op: 'invalidate'; readonly on: string; readonly commands: readonly GuestCommand[] }
  /** The device accesses 8 bytes of a page: reads what the page says of itself, or writes beside it. */
  | { readonly op: 'dma'; readonly dev: string; readonly page: number; readonly write?: boolean }
  /** The nth use (1: the next) of a point of the kernel whose name begins so fails, if the next operation gets there. */
  | { readonly op: 'fail'; readonly point: string; readonly nth: number }
  /** A guest changes its own stage 1 table; `to` null: page not mapped. */
  | {
      readonly op: 'guestMap';
      readonly vm: string;
      readonly space: number;
      readonly page: number;
      readonly to: number | null;
    };

/** Names of the operations. */
export type OperationName = Operation['op'];

/** Where a DMA ended up. `vm` and `page`: whose page was read; undefined for a write or a page that is no VM's data. */
export interface DmaOutcome {
  readonly status: 'ok' | 'abort' | 'stall';
  readonly vm?: number;
  readonly page?: number;
}

/** How an operation ended. `skipped`: it was not tried, because the name it gives is taken. */
export type OperationResult =
  | { readonly status: 'ok'; readonly dma?: DmaOutcome }
  | { readonly status: 'error'; readonly errno: Errno; readonly why: string }
  | { readonly status: 'skipped'; readonly why: string };

const OK: OperationResult = { status: 'ok' };

/** An id that nothing ever has: the last one. */
const NO_ID = 0x7fff_ffff;
const PAGE = 4096n;
/** Where a DMA write of 8 bytes goes inside its page: beside the mark. */
export const WRITE_OFFSET = 8;

/**
 * Carries an operation out. Errors of the kernel are results; anything else thrown is a defect, and is thrown on.
 * @throws CaseError for a device, VM or page that the lab does not have
 */
export function execute(lab: Lab, operation: Operation): OperationResult {
  if ('as' in operation && lab.handle(operation.as) !== undefined)
    return { status: 'skipped', why: `${operation.as} is there already` };
  try {
    return perform(lab, operation) ?? OK;
  } catch (error) {
    if (error instanceof KernelError) return { status: 'error', errno: error.errno, why: reason(error) };
    throw error;
  } finally {
    if (operation.op !== 'fail') lab.kernel.clearFailures();
  }
}

function reason(error: KernelError): string {
  const text = error.message.slice(error.errno.length + 2);
  return error instanceof IommufdError ? text.slice(text.indexOf(': ') + 2) : text;
}

function perform(lab: Lab, o: Operation): OperationResult | undefined {
  // An object of another context is nothing in this one.
  const id = (name: string, ctx: IommufdContext): number => {
    const handle = lab.handle(name);
    return handle?.ctx === ctx ? handle.id : NO_ID;
  };
  const ofName = (name: string): Handle => lab.handle(name) ?? { id: NO_ID, ctx: lab.ctx };
  const ofDev = (name: string): { readonly ctx: IommufdContext; readonly dev_id: number } => {
    const { vfio, ctx } = lab.device(name);
    return { ctx, dev_id: vfio.bound ? vfio.idev.id : NO_ID };
  };
  switch (o.op) {
    case 'ioasAlloc':
      lab.name(o.as, lab.ctx.ioasAlloc().out_ioas_id);
      return undefined;
    case 'map': {
      const { ctx, id: ioas } = ofName(o.ioas);
      ctx.ioasMap(lab.guest(o.vm).mapping(ioas, o.page, o.from, o.pages, o.readonly !== true));
      return undefined;
    }
    case 'unmap': {
      const { ctx, id: ioas_id } = ofName(o.ioas);
      ctx.ioasUnmap({ ioas_id, iova: guestAddress(o.page), length: BigInt(o.pages) * PAGE });
      return undefined;
    }
    case 'hwptAlloc': {
      const flags = o.nestParent === true ? HWPT_ALLOC_FLAGS.NEST_PARENT : 0;
      const { ctx, dev_id } = ofDev(o.dev);
      lab.name(o.as, ctx.hwptAlloc({ dev_id, pt_id: id(o.ioas, ctx), flags }).out_hwpt_id, ctx);
      return undefined;
    }
    case 'nestedAlloc': {
      const { ctx, dev_id } = ofDev(o.dev);
      const data_uptr = vste(o.vste, o.cd, o.ats);
      const made = ctx.hwptAlloc({ dev_id, pt_id: id(o.on, ctx), data_type: HWPT_DATA_TYPE.ARM_SMMUV3, data_uptr });
      lab.name(o.as, made.out_hwpt_id, ctx);
      return undefined;
    }
    case 'viommuAlloc': {
      const { ctx, dev_id } = ofDev(o.dev);
      const made = ctx.viommuAlloc({ type: VIOMMU_TYPE.ARM_SMMUV3, dev_id, hwpt_id: id(o.parent, ctx) });
      lab.name(o.as, made.out_viommu_id, ctx);
      return undefined;
    }
    case 'vdeviceAlloc': {
      const { ctx, dev_id } = ofDev(o.dev);
      const made = ctx.vdeviceAlloc({ viommu_id: id(o.viommu, ctx), dev_id, virt_id: BigInt(o.vsid) });
      lab.name(o.as, made.out_vdevice_id, ctx);
      return undefined;
    }
    case 'attach':
      lab.device(o.dev).vfio.attach(id(o.to, lab.device(o.dev).ctx));
      return undefined;
    case 'detach':
      lab.device(o.dev).vfio.detach();
      return undefined;
    case 'bind':
      lab.device(o.dev).vfio.bind(lab.device(o.dev).ctx);
      return undefined;
    case 'unbind':
      lab.device(o.dev).vfio.close();
      // Its vDEVICE went with it.
      lab.forgetDead();
      return undefined;
    case 'destroy':
      ofName(o.name).ctx.destroy({ id: ofName(o.name).id });
      lab.unname(o.name);
      return undefined;
    case 'invalidate':
      ofName(o.on).ctx.hwptInvalidate({
        hwpt_id: ofName(o.on).id,
        data_uptr: bytesOf(o.commands.map(wordsOf)),
        data_type: HWPT_INVALIDATE_DATA_TYPE.ARM_SMMUV3,
        entry_len: CMD_TLBI_NSNH_ALL.bytes,
        entry_num: o.commands.length,
      });
      return undefined;
    case 'dma':
      return { status: 'ok', dma: dma(lab, o.dev, o.page, o.write === true) };
    case 'fail':
      lab.kernel.failNth(o.nth, o.point);
      return undefined;
    case 'guestMap':
      checkPages(o.page, o.to);
      lab.guest(o.vm).mapPage(o.space, o.page, o.to);
      return undefined;
  }
}

function checkPages(page: number, to: number | null): void {
  for (const one of [page, to ?? page])
    if (!Number.isInteger(one) || one < FIRST_DATA_PAGE || one >= GUEST_PAGES)
      throw new CaseError(`guest page ${one}, expected ${FIRST_DATA_PAGE} to ${GUEST_PAGES - 1}`);
}

const ONES = new Uint8Array(8).fill(0xff);

function dma(lab: Lab, name: string, page: number, write: boolean): DmaOutcome {
  const { endpoint } = lab.device(name);
  const at = guestAddress(page);
  const result = write ? endpoint.write(at + BigInt(WRITE_OFFSET), ONES) : endpoint.read(at, 8);
  lab.kernel.runInterrupts();
  if (result.status !== 'ok' || write) return { status: result.status };
  return { status: 'ok', ...readMark(result.data) };
}

/** A guest's command as its 16 bytes. */
function wordsOf({ command, vsid = 0, asid = 0 }: GuestCommand): Words {
  switch (command) {
    case 'NSNH_ALL':
      return CMD_TLBI_NSNH_ALL.encode({});
    case 'NH_ALL':
      return CMD_TLBI_NH_ALL.encode({});
    case 'NH_ASID':
      return CMD_TLBI_NH_ASID.encode({ ASID: asid });
    case 'CFGI_CD':
      return CMD_CFGI_CD.encode({ StreamID: vsid, Leaf: 1 });
    case 'CFGI_CD_ALL':
      return CMD_CFGI_CD_ALL.encode({ StreamID: vsid });
  }
}

function bytesOf(commands: readonly Words[]): Uint8Array {
  const bytes = new Uint8Array(commands.length * CMD_TLBI_NSNH_ALL.bytes);
  for (const [i, words] of commands.entries())
    bytes.set(new Uint8Array(words.buffer, words.byteOffset, words.byteLength), i * CMD_TLBI_NSNH_ALL.bytes);
  return bytes;
}
