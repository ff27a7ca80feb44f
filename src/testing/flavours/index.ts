/** The flavours that cases are drawn from. Each run draws one, in turn by their shares. */
import type { Flavour } from '../flavour.ts';
import { ats } from './ats.ts';
import { crowds } from './crowds.ts';
import { dirty } from './dirty.ts';
import { dma } from './dma.ts';
import { failures } from './failures.ts';
import { faults } from './faults.ts';
import { freeing } from './freeing.ts';
import { guests } from './guests.ts';
import { exhaustion, handover, unplug } from './handover.ts';
import { lives } from './lives.ts';
import { mixed } from './mixed.ts';
import { owners } from './owners.ts';
import { pasids } from './pasids.ts';
import { spaces } from './spaces.ts';
import { streams } from './streams.ts';
import { sva } from './sva.ts';
import { timeouts } from './timeouts.ts';
import { vcmdq } from './vcmdq.ts';

/** In the order in which they take turns. */
export const FLAVOURS: readonly Flavour[] = [
  owners,
  freeing,
  failures,
  lives,
  dma,
  crowds,
  mixed,
  vcmdq,
  ats,
  pasids,
  faults,
  guests,
  streams,
  spaces,
  timeouts,
  handover,
  unplug,
  exhaustion,
  dirty,
  sva,
];
