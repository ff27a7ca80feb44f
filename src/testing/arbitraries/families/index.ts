/** The arbitraries of all families joined. */
import type { Operation } from '../../operation.ts';
import type { Makers, Pools } from '../pools.ts';
import { atsMakers } from './ats.ts';
import { cmdqvMakers } from './cmdqv.ts';
import { deviceMakers } from './devices.ts';
import { failureMakers } from './failures.ts';
import { guestMakers } from './guests.ts';
import { handoverMakers } from './handover.ts';
import { objectMakers } from './objects.ts';
import { pasidMakers } from './pasids.ts';
import { queueMakers } from './queues.ts';
import { spaceMakers } from './spaces.ts';
import { svaMakers } from './sva.ts';

/** An arbitrary for each operation. */
export const makers = (p: Pools): Makers<Operation> => ({
  ...spaceMakers(p),
  ...objectMakers(p),
  ...deviceMakers(p),
  ...guestMakers(p),
  ...atsMakers(p),
  ...pasidMakers(p),
  ...queueMakers(p),
  ...cmdqvMakers(p),
  ...handoverMakers(p),
  ...svaMakers(p),
  ...failureMakers(),
});
