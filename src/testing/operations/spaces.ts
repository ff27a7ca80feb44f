/** IO address spaces: made, and filled with pages of VMs. */
import { HWPT_SET_DIRTY_FLAGS, IOAS_MAP_FLAGS } from '../../../spec/uapi/constants.ts';
import { GUEST_PAGES, guestAddress } from '../guest.ts';
import { handleOf, idOf, PAGE, type Performers, type Texts } from './family.ts';

/** See the module comment. */
export type SpaceOperation =
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
      /** IOMMU_IOAS_MAP_FILE: the VM's memory as a file (memfd). Default: by user address. */
      readonly file?: boolean;
    }
  | { readonly op: 'unmap'; readonly ioas: string; readonly page: number; readonly pages: number }
  /** Everything goes. */
  | { readonly op: 'unmapAll'; readonly ioas: string }
  /** IOMMU_IOAS_COPY: what another space maps from its page `from` on, at IPA page `page` of this one. */
  | {
      readonly op: 'copy';
      readonly ioas: string;
      readonly source: string;
      readonly page: number;
      readonly from: number;
      readonly pages: number;
      readonly readonly?: boolean;
    }
  /** Dirty tracking of a HWPT on or off. */
  | { readonly op: 'dirtyTracking'; readonly hwpt: string; readonly on: boolean }
  /** The dirty bitmap of a VM's memory; what was read is clear from then on. */
  | { readonly op: 'dirtyRead'; readonly hwpt: string };

/** Length with which IOMMU_IOAS_UNMAP takes everything. */
const ALL = (1n << 64n) - 1n;
/** A bitmap is made of 64-bit words. */
const BITMAP_BYTES = 8 * Math.ceil(GUEST_PAGES / 64);

/** How each is carried out. */
export const performSpaces: Performers<SpaceOperation> = {
  ioasAlloc: (lab, o) => {
    lab.name(o.as, lab.ctx.ioasAlloc().out_ioas_id);
    return undefined;
  },
  map: (lab, o) => {
    const { ctx, id } = handleOf(lab, o.ioas);
    const guest = lab.guest(o.vm);
    const writable = o.readonly !== true;
    if (o.file === true) ctx.ioasMapFile(guest.fileMapping(id, o.page, o.from, o.pages, writable));
    else ctx.ioasMap(guest.mapping(id, o.page, o.from, o.pages, writable));
    return undefined;
  },
  unmap: (lab, o) => {
    const { ctx, id: ioas_id } = handleOf(lab, o.ioas);
    ctx.ioasUnmap({ ioas_id, iova: guestAddress(o.page), length: BigInt(o.pages) * PAGE });
    return undefined;
  },
  unmapAll: (lab, o) => {
    const { ctx, id: ioas_id } = handleOf(lab, o.ioas);
    ctx.ioasUnmap({ ioas_id, iova: 0n, length: ALL });
    return undefined;
  },
  copy: (lab, o) => {
    const { ctx, id: dst_ioas_id } = handleOf(lab, o.ioas);
    const { FIXED_IOVA, READABLE, WRITEABLE } = IOAS_MAP_FLAGS;
    ctx.ioasCopy({
      flags: FIXED_IOVA | READABLE | (o.readonly === true ? 0 : WRITEABLE),
      dst_ioas_id,
      src_ioas_id: idOf(lab, o.source, ctx),
      length: BigInt(o.pages) * PAGE,
      dst_iova: guestAddress(o.page),
      src_iova: guestAddress(o.from),
    });
    return undefined;
  },
  dirtyTracking: (lab, o) => {
    const { ctx, id: hwpt_id } = handleOf(lab, o.hwpt);
    ctx.hwptSetDirtyTracking({ hwpt_id, flags: o.on ? HWPT_SET_DIRTY_FLAGS.ENABLE : 0 });
    return undefined;
  },
  dirtyRead: (lab, o) => {
    const { ctx, id: hwpt_id } = handleOf(lab, o.hwpt);
    const bitmap = new Uint8Array(BITMAP_BYTES);
    ctx.hwptGetDirtyBitmap({
      hwpt_id,
      iova: guestAddress(0),
      length: BigInt(GUEST_PAGES) * PAGE,
      page_size: PAGE,
      data: bitmap,
    });
    const dirty = Array.from({ length: GUEST_PAGES }, (_, page) => page).filter(
      (page) => (((bitmap[page >> 3] ?? 0) >> (page & 7)) & 1) === 1,
    );
    return { status: 'ok', dirty, saw: `dirty ${dirty.join(' ') || 'none'}` };
  },
};

/** How each is told. */
export const spaceTexts: Texts<SpaceOperation> = {
  ioasAlloc: () => [],
  map: (o) => [
    o.ioas,
    `page ${o.page}`,
    `${o.pages} of ${o.vm} from ${o.from}`,
    o.readonly ? 'read-only' : undefined,
    o.file ? 'as a file' : undefined,
  ],
  unmap: (o) => [o.ioas, `page ${o.page}`, o.pages],
  unmapAll: (o) => [o.ioas],
  copy: (o) => [
    o.ioas,
    `page ${o.page}`,
    `${o.pages} of ${o.source} from ${o.from}`,
    o.readonly ? 'read-only' : undefined,
  ],
  dirtyTracking: (o) => [o.hwpt, o.on ? 'on' : 'off'],
  dirtyRead: (o) => [o.hwpt],
};
