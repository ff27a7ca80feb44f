/** IO address spaces: made, and filled with pages of VMs. */
import { guestAddress } from '../guest.ts';
import { handleOf, PAGE, type Performers, type Texts } from './family.ts';

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
    }
  | { readonly op: 'unmap'; readonly ioas: string; readonly page: number; readonly pages: number };

/** How each is carried out. */
export const performSpaces: Performers<SpaceOperation> = {
  ioasAlloc: (lab, o) => {
    lab.name(o.as, lab.ctx.ioasAlloc().out_ioas_id);
    return undefined;
  },
  map: (lab, o) => {
    const { ctx, id } = handleOf(lab, o.ioas);
    ctx.ioasMap(lab.guest(o.vm).mapping(id, o.page, o.from, o.pages, o.readonly !== true));
    return undefined;
  },
  unmap: (lab, o) => {
    const { ctx, id: ioas_id } = handleOf(lab, o.ioas);
    ctx.ioasUnmap({ ioas_id, iova: guestAddress(o.page), length: BigInt(o.pages) * PAGE });
    return undefined;
  },
};

/** How each is told. */
export const spaceTexts: Texts<SpaceOperation> = {
  ioasAlloc: () => [],
  map: (o) => [o.ioas, `page ${o.page}`, `${o.pages} of ${o.vm} from ${o.from}`, o.readonly ? 'read-only' : undefined],
  unmap: (o) => [o.ioas, `page ${o.page}`, o.pages],
};
