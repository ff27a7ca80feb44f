/** iommufd objects: HWPTs, vIOMMUs, vDEVICEs, and DESTROY. */
import { HWPT_ALLOC_FLAGS, HWPT_DATA_TYPE, VIOMMU_TYPE } from '../../../spec/uapi/constants.ts';
import { iommu_viommu_tegra241_cmdqv } from '../../../spec/uapi/data-structs.ts';
import type { IommufdContext } from '../../iommufd/index.ts';
import { type VsteMode, type VsteOptions, vste } from '../guest.ts';
import type { Lab } from '../lab.ts';
import { boundOf, handleOf, idOf, type Performers, type Texts } from './family.ts';

/** See the module comment. */
export type ObjectOperation =
  | {
      readonly op: 'hwptAlloc';
      readonly as: string;
      readonly dev: string;
      readonly ioas: string;
      readonly nestParent?: boolean;
      /** ALLOC_PASID: PASIDs may be attached to it. */
      readonly pasid?: boolean;
      /** DIRTY_TRACKING. */
      readonly dirty?: boolean;
      /** Fault queue that its devices' page faults go to. */
      readonly fault?: string;
    }
  /** `type` tegra241-cmdqv: with a VINTF, whose page 0 is offered for mmap. Default arm-smmuv3. */
  | {
      readonly op: 'viommuAlloc';
      readonly as: string;
      readonly dev: string;
      readonly parent: string;
      readonly type?: 'arm-smmuv3' | 'tegra241-cmdqv';
    }
  | {
      readonly op: 'vdeviceAlloc';
      readonly as: string;
      readonly dev: string;
      readonly viommu: string;
      readonly vsid: number;
    }
  /** A nested HWPT on a vIOMMU, or on a nesting parent without one. */
  | ({
      readonly op: 'nestedAlloc';
      readonly as: string;
      readonly dev: string;
      readonly on: string;
      readonly vste: VsteMode;
      /** Fault queue that its devices' page faults go to. */
      readonly fault?: string;
    } & VsteOptions)
  | { readonly op: 'destroy'; readonly name: string };

/** What makes a HWPT one with a fault queue. */
function faultArgs(lab: Lab, name: string | undefined, ctx: IommufdContext) {
  return name === undefined ? { flags: 0 } : { flags: HWPT_ALLOC_FLAGS.FAULT_ID_VALID, fault_id: idOf(lab, name, ctx) };
}

/** How each is carried out. */
export const performObjects: Performers<ObjectOperation> = {
  hwptAlloc: (lab, o) => {
    const { NEST_PARENT, ALLOC_PASID, DIRTY_TRACKING } = HWPT_ALLOC_FLAGS;
    const { ctx, dev_id } = boundOf(lab, o.dev);
    const fault = faultArgs(lab, o.fault, ctx);
    const flags =
      (o.nestParent === true ? NEST_PARENT : 0) |
      (o.pasid === true ? ALLOC_PASID : 0) |
      (o.dirty === true ? DIRTY_TRACKING : 0) |
      fault.flags;
    const made = ctx.hwptAlloc({ dev_id, pt_id: idOf(lab, o.ioas, ctx), ...fault, flags });
    lab.name(o.as, made.out_hwpt_id, ctx);
    return undefined;
  },
  viommuAlloc: (lab, o) => {
    const { ctx, dev_id } = boundOf(lab, o.dev);
    const hwpt_id = idOf(lab, o.parent, ctx);
    if (o.type !== 'tegra241-cmdqv') {
      lab.name(o.as, ctx.viommuAlloc({ type: VIOMMU_TYPE.ARM_SMMUV3, dev_id, hwpt_id }).out_viommu_id, ctx);
      return undefined;
    }
    const data = iommu_viommu_tegra241_cmdqv.encode();
    const made = ctx.viommuAlloc({
      type: VIOMMU_TYPE.TEGRA241_CMDQV,
      dev_id,
      hwpt_id,
      data_len: data.length,
      data_uptr: data,
    });
    lab.name(o.as, made.out_viommu_id, ctx);
    const { out_vintf_mmap_offset: offset, out_vintf_mmap_length: length } = iommu_viommu_tegra241_cmdqv.decode(data);
    lab.windows.offer(o.as, { ctx, offset, length });
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
    const data_uptr = vste(o.vste, o);
    const made = ctx.hwptAlloc({
      dev_id,
      pt_id: idOf(lab, o.on, ctx),
      data_type: HWPT_DATA_TYPE.ARM_SMMUV3,
      data_uptr,
      ...faultArgs(lab, o.fault, ctx),
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
  hwptAlloc: (o) => [
    o.dev,
    o.ioas,
    o.nestParent === true ? 'nest parent' : undefined,
    o.pasid === true ? 'for PASIDs' : undefined,
    o.dirty === true ? 'dirty tracking' : undefined,
    o.fault === undefined ? undefined : `faults to ${o.fault}`,
  ],
  viommuAlloc: (o) => [o.dev, o.parent, o.type],
  vdeviceAlloc: (o) => [o.dev, o.viommu, `vSID ${o.vsid}`],
  nestedAlloc: (o) => [
    o.dev,
    o.on,
    o.vste,
    o.vste === 'translate' ? `CD ${o.cd ?? 0}` : undefined,
    o.ssids === undefined || o.ssids === 0 ? undefined : `${2 ** o.ssids} SSIDs, ${o.dss ?? 'TERMINATE'}`,
    o.stalld === true ? 'no stalls' : undefined,
    o.ats ? 'ATS' : undefined,
    o.fault === undefined ? undefined : `faults to ${o.fault}`,
  ],
  destroy: (o) => [o.name],
};
