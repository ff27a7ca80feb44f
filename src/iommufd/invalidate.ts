/** IOMMU_HWPT_INVALIDATE: a guest's invalidations, by nested HWPT or by vIOMMU (hw_pagetable.c). */
import { INVALIDATE_MAX_ENTRIES } from '../../spec/uapi.ts';
import type { UserArray } from '../driver/iommu/ops.ts';
import { NO_PASID } from './attach.ts';
import type { Command } from './command.ts';
import type { IommufdCtx } from './ctx.ts';
import { fail } from './errors.ts';
import { checkIommu } from './hold.ts';
import { HwptNested } from './hwpt.ts';
import type { IommufdObject } from './object.ts';
import { PAGE_BYTES } from './process.ts';
import type { Ucmd } from './ucmd.ts';
import { userArray } from './user-data.ts';
import { ViommuObject } from './viommu.ts';

type InvalidateCmd = Command<'IOMMU_HWPT_INVALIDATE'>;

/** IOMMU_HWPT_INVALIDATE. entry_num is written back on every path. */
export function hwptInvalidate(ctx: IommufdCtx, ucmd: Ucmd<InvalidateCmd>): void {
  const { cmd } = ucmd;
  const done = { entries: 0 };
  try {
    invalidate(ctx, ucmd, done);
  } finally {
    cmd.entry_num = done.entries;
    // Where this fails, EFAULT is the answer whatever went wrong before.
    ucmd.respond();
  }
}

function invalidate(ctx: IommufdCtx, ucmd: Ucmd<InvalidateCmd>, done: { entries: number }): void {
  const { cmd } = ucmd;
  const pointer = ucmd.pointer('data_uptr');
  if (cmd.__reserved !== 0) fail('EOPNOTSUPP', '__reserved is not 0');
  if (cmd.entry_num !== 0) {
    if (pointer.isNull) fail('EINVAL', 'data_uptr is 0');
    if (cmd.entry_len === 0 || cmd.entry_len > PAGE_BYTES) fail('EINVAL', `entries of ${cmd.entry_len} bytes`);
    if (cmd.entry_num > INVALIDATE_MAX_ENTRIES) fail('EINVAL', `${cmd.entry_num} entries are too many`);
  }
  const object = ctx.objects.get(cmd.hwpt_id);
  const array = userArray(pointer, cmd.data_type, cmd.entry_len, cmd.entry_num);
  try {
    const call = operationOf(object);
    const say = object instanceof ViommuObject ? announcing(object) : () => {};
    try {
      say('begin');
      call(array);
    } finally {
      say('done');
      done.entries = array.entryNum;
    }
  } finally {
    ctx.objects.put(object);
  }
}

/**
 * Says of each stream with a vDEVICE that its VM's commands begin or are done: which StreamIDs they may name, and, by those
 * attached through the vIOMMU, which VMID.
 */
function announcing(viommu: ViommuObject): (act: 'begin' | 'done') => void {
  const { kernel } = viommu.ctx;
  return (act) => {
    for (const vdev of viommu.vdevs.values()) {
      if (vdev === null) continue;
      const hwpt = vdev.idev.igroup.attachments.get(NO_PASID)?.hwpt;
      const attached = hwpt instanceof HwptNested && hwpt.viommu === viommu;
      const owner = attached ? 'invalidate for a VM' : 'invalidate for a VM, not attached';
      const { smmu, streamIds } = vdev.dev.node;
      for (const sid of streamIds) kernel.announce({ what: 'operation', act, where: smmu, id: BigInt(sid), owner });
    }
  };
}

/** The driver's operation for the object. @throws KernelError EOPNOTSUPP, EINVAL, ENODEV */
function operationOf(object: IommufdObject): (array: UserArray) => void {
  if (object instanceof HwptNested) {
    const domain = object.liveDomain;
    const op = domain.ops.cacheInvalidateUser?.bind(domain.ops);
    if (op === undefined) fail('EOPNOTSUPP', `the driver of ${object.label} takes invalidations by vIOMMU only`);
    return (array) => op(domain, array);
  }
  if (object instanceof ViommuObject) {
    checkIommu(object, 'HWPT_INVALIDATE');
    const { ops } = object;
    const op = ops?.cacheInvalidate?.bind(ops);
    if (op === undefined) fail('EOPNOTSUPP', `the driver of ${object.label} takes no invalidations`);
    return (array) => op(object, array);
  }
  return fail('EINVAL', `hwpt_id names a ${object.kind}`);
}
