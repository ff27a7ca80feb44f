/** Steps on SMMUs and kernels as wholes. */
import { z } from 'zod';
import { DAMAGES, type HandoverOperation } from '../../testing/operations/handover.ts';
import { name, type Shapes, small } from './values.ts';

/** See the module comment. */
export const handoverShapes: Shapes<HandoverOperation> = {
  smmuSuspend: { smmu: name, power: z.enum(['on', 'off', 'warm']).optional() },
  smmuResume: { smmu: name },
  smmuReset: { smmu: name, warm: z.boolean().optional() },
  cmdqvReset: { smmu: name },
  smmuUnplug: { smmu: name },
  kexec: {
    how: z.enum(['orderly', 'kexec', 'kdump']),
    damage: z.strictObject({ dev: name, what: z.enum(DAMAGES) }).optional(),
  },
  tenants: { smmu: name, left: small(0, 0xffff) },
};
