/** What each operation takes, all families joined. */
import type { Operation } from '../../testing/operation.ts';
import { atsShapes } from './ats.ts';
import { cmdqvShapes } from './cmdqv.ts';
import { deviceShapes } from './devices.ts';
import { failureShapes } from './failures.ts';
import { guestShapes } from './guests.ts';
import { handoverShapes } from './handover.ts';
import { objectShapes } from './objects.ts';
import { pasidShapes } from './pasids.ts';
import { queueShapes } from './queues.ts';
import { spaceShapes } from './spaces.ts';
import { svaShapes } from './sva.ts';
import type { Shapes } from './values.ts';

/** Operations: by name, what each takes. */
export const OPERATIONS: Shapes<Operation> = {
  ...spaceShapes,
  ...objectShapes,
  ...deviceShapes,
  ...guestShapes,
  ...atsShapes,
  ...pasidShapes,
  ...queueShapes,
  ...cmdqvShapes,
  ...handoverShapes,
  ...svaShapes,
  ...failureShapes,
};
