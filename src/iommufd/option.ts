/** The small ioctls of the context itself: DESTROY, OPTION, VFIO_IOAS (main.c, vfio_compat.c). */
import { OPTION_ID, OPTION_OP, VFIO_IOAS_OP } from '../../spec/uapi.ts';
import type { Command } from './command.ts';
import type { IommufdCtx } from './ctx.ts';
import { fail } from './errors.ts';
import { getIoas, ioasOptionHugePages } from './ioas.ts';
import type { Ucmd } from './ucmd.ts';

/** IOMMU_DESTROY. */
export function destroy(ctx: IommufdCtx, ucmd: Ucmd<Command<'IOMMU_DESTROY'>>): void {
  ctx.objects.remove(ucmd.cmd.id, (object) => {
    if (ctx.vfioIoas === object) ctx.vfioIoas = null;
  });
}

/** IOMMU_OPTION. Only val64 is copied back. */
export function option(ctx: IommufdCtx, ucmd: Ucmd<Command<'IOMMU_OPTION'>>): void {
  const { cmd } = ucmd;
  if (cmd.__reserved !== 0) fail('EOPNOTSUPP', '__reserved is not 0');
  if (cmd.option_id === OPTION_ID.RLIMIT_MODE) optionRlimitMode(ctx, cmd);
  else if (cmd.option_id === OPTION_ID.HUGE_PAGES) ioasOptionHugePages(ctx, cmd);
  else fail('EOPNOTSUPP', `unknown option ${cmd.option_id}`);
  ucmd.respondField('val64');
}

function optionRlimitMode(ctx: IommufdCtx, cmd: Command<'IOMMU_OPTION'>): void {
  if (cmd.object_id !== 0) fail('EOPNOTSUPP', 'RLIMIT_MODE belongs to no object');
  if (cmd.op === OPTION_OP.GET) {
    cmd.val64 = BigInt(ctx.rlimitMode);
    return;
  }
  if (cmd.op !== OPTION_OP.SET) fail('EOPNOTSUPP', `unknown op ${cmd.op}`);
  if (ctx.process.capable?.('sys-resource') === false) fail('EPERM', 'CAP_SYS_RESOURCE is missing');
  if (!ctx.objects.empty) fail('EBUSY', 'the mode is set before the first object is made');
  if (cmd.val64 !== 0n && cmd.val64 !== 1n) fail('EINVAL', `value ${cmd.val64}, expected 0 or 1`);
  ctx.rlimitMode = cmd.val64 === 0n ? 0 : 1;
}

/** IOMMU_VFIO_IOAS. */
export function vfioIoas(ctx: IommufdCtx, ucmd: Ucmd<Command<'IOMMU_VFIO_IOAS'>>): void {
  const { cmd } = ucmd;
  if (cmd.__reserved !== 0) fail('EOPNOTSUPP', '__reserved is not 0');
  if (cmd.op === VFIO_IOAS_OP.GET) {
    if (ctx.vfioIoas === null) fail('ENODEV', 'no IOAS is set');
    cmd.ioas_id = ctx.vfioIoas.id;
    ucmd.respond();
  } else if (cmd.op === VFIO_IOAS_OP.SET) {
    const ioas = getIoas(ctx, cmd.ioas_id);
    ctx.vfioIoas = ioas;
    ctx.objects.put(ioas);
  } else if (cmd.op === VFIO_IOAS_OP.CLEAR) ctx.vfioIoas = null;
  else fail('EOPNOTSUPP', `unknown op ${cmd.op}`);
}
