/** iommufd objects: HWPTs, vIOMMUs, vDEVICEs, and DESTROY. */
import { HWPT_ALLOC_FLAGS, HWPT_DATA_TYPE, VIOMMU_TYPE } from '../../../spec/uapi/constants.ts';
import { type VsteMode, vste } from '../guest.ts';
import { boundOf, handleOf, idOf, type Performers, type Texts } from './family.ts';

/** See the module comment. */
export type ObjectOperation =
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
  | { readonly op: 'destroy'; readonly name: string };

/** How each is carried out. */
export const performObjects: Performers<ObjectOperation> = {
  hwptAlloc: (lab, o) => {
    const flags = o.nestParent === true ? HWPT_ALLOC_FLAGS.NEST_PARENT : 0;
    const { ctx, dev_id } = boundOf(lab, o.dev);
    lab.name(o.as, ctx.hwptAlloc({ dev_id, pt_id: idOf(lab, o.ioas, ctx), flags }).out_hwpt_id, ctx);
    return undefined;
  },
  viommuAlloc: (lab, o) => {
    const { ctx, dev_id } = boundOf(lab, o.dev);
    const made = ctx.viommuAlloc({ type: VIOMMU_TYPE.ARM_SMMUV3, dev_id, hwpt_id: idOf(lab, o.parent, ctx) });
    lab.name(o.as, made.out_viommu_id, ctx);
    return undefined;
  },
  vdeviceAlloc: (lab, o) => {
    const { ctx, dev_id } = boundOf(lab, o.dev);
    const made = ctx.vdeviceAlloc({ viommu_id: idOf(lab, o.viommu, ctx), dev_id, virt_id: BigInt(o.vsid) });
    lab.name(o.as, made.out_vdevice_id, ctx);
    return undefined;
  },
  nestedAlloc: (lab, o) => {
    const { ctx, dev_id } = boundOf(lab, o.dev);
    const data_uptr = vste(o.vste, o.cd, o.ats);
    const made = ctx.hwptAlloc({
      dev_id,
      pt_id: idOf(lab, o.on, ctx),
      data_type: HWPT_DATA_TYPE.ARM_SMMUV3,
      data_uptr,
    });
    lab.name(o.as, made.out_hwpt_id, ctx);
    return undefined;
  },
  destroy: (lab, o) => {
    const { ctx, id } = handleOf(lab, o.name);
    ctx.destroy({ id });
    lab.unname(o.name);
    return undefined;
  },
};

/** How each is told. */
export const objectTexts: Texts<ObjectOperation> = {
  hwptAlloc: (o) => [o.dev, o.ioas, o.nestParent === true ? 'nest parent' : undefined],
  viommuAlloc: (o) => [o.dev, o.parent],
  vdeviceAlloc: (o) => [o.dev, o.viommu, `vSID ${o.vsid}`],
  nestedAlloc: (o) => [
    o.dev,
    o.on,
    o.vste,
    o.vste === 'translate' ? `CD ${o.cd ?? 0}` : undefined,
    o.ats ? 'ATS' : undefined,
  ],
  destroy: (o) => [o.name],
};
