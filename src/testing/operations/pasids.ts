/** PASIDs of devices on the host's side: each attached to a HWPT or IOAS of its own. */
import { idOf, type Performers, type Texts } from './family.ts';

/** See the module comment. */
export type PasidOperation =
  /** Attaches a PASID of a device, or moves it if it is attached. */
  | { readonly op: 'pasidAttach'; readonly dev: string; readonly pasid: number; readonly to: string }
  | { readonly op: 'pasidDetach'; readonly dev: string; readonly pasid: number };

/** How each is carried out. */
export const performPasids: Performers<PasidOperation> = {
  pasidAttach: (lab, o) => {
    const { vfio, ctx } = lab.device(o.dev);
    vfio.attachPasid(idOf(lab, o.to, ctx), o.pasid);
    return undefined;
  },
  pasidDetach: (lab, o) => {
    lab.device(o.dev).vfio.detachPasid(o.pasid);
    return undefined;
  },
};

/** How each is told. */
export const pasidTexts: Texts<PasidOperation> = {
  pasidAttach: (o) => [o.dev, `PASID ${o.pasid}`, o.to],
  pasidDetach: (o) => [o.dev, `PASID ${o.pasid}`],
};
