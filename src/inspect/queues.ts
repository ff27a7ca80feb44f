/** Queues in memory images: what waits, what was done last, and whether the indices make sense (IHI 0070 3.5). */

import type { Caps } from '../../spec/caps.ts';
import { CMD_SYNC } from '../../spec/commands.ts';
import type { Register } from '../../spec/layout.ts';
import * as R from '../../spec/registers/queues.ts';
import { decode } from './decode.ts';
import type { ImageMemory } from './memory.ts';
import { type DecodedRecord, hex } from './record.ts';
import { type Registers, registerWords } from './stream-table.ts';
import { hexWords } from './words.ts';

/** An entry of a queue. */
export interface QueueEntry {
  readonly index: number;
  /** "0x..": where it lies. */
  readonly pa: string;
  readonly words: readonly string[];
  readonly record: DecodedRecord;
}

/** A queue. */
export interface QueueDump {
  readonly name: 'cmdq' | 'eventq';
  readonly base: string;
  readonly log2size: number;
  /** Indices and wrap bits. */
  readonly prod: number;
  readonly cons: number;
  readonly prodWrap: 0 | 1;
  readonly consWrap: 0 | 1;
  /** Entries between CONS and PROD. */
  readonly used: number;
  readonly state: 'empty' | 'used' | 'full' | 'inconsistent';
  /** Why consumption stopped, if CMDQ_CONS.ERR says so. */
  readonly error?: string;
  /** Records were dropped and software has not acknowledged it. */
  readonly overflow?: true;
  /** Entries that wait, oldest first; at most {@link MAX_ENTRIES}. */
  readonly waiting: readonly QueueEntry[];
  /** Entries that were taken before, oldest first, as memory still shows them. */
  readonly recent: readonly QueueEntry[];
  /** Bytes of the queue that no image has were met. */
  readonly missing?: true;
}

/** Waiting entries that are listed at most. */
export const MAX_ENTRIES = 4096;

/** Taken entries that are listed. */
export const RECENT = 16;

interface Ring {
  readonly name: QueueDump['name'];
  readonly base: Register;
  readonly prod: Register;
  readonly cons: Register;
  readonly kind: 'cmd' | 'event';
  readonly bytesLog2: number;
}

const RINGS: readonly Ring[] = [
  { name: 'cmdq', base: R.CMDQ_BASE, prod: R.CMDQ_PROD, cons: R.CMDQ_CONS, kind: 'cmd', bytesLog2: 4 },
  { name: 'eventq', base: R.EVENTQ_BASE, prod: R.EVENTQ_PROD, cons: R.EVENTQ_CONS, kind: 'event', bytesLog2: 5 },
] as const;

/** CERROR in words. */
const ERRORS: Readonly<Record<string, string>> = {
  ILL: 'CERROR_ILL: the command at CONS is illegal',
  ABT: 'CERROR_ABT: fetching the command at CONS was aborted',
  ATC_INV_SYNC: 'CERROR_ATC_INV_SYNC: a device did not answer an ATC invalidation before this CMD_SYNC',
};

const errorText = (code: number): string => {
  const name =
    Object.entries(R.CERROR)
      .find(([, value]) => value === code)?.[0]
      ?.replace(/^CERROR_/, '') ?? '';
  return ERRORS[name] ?? `reserved error code ${hex(code)}`;
};

function ringDump(
  ring: Ring,
  memory: ImageMemory,
  registers: Registers,
  caps: Caps | undefined,
): QueueDump | undefined {
  const value = (register: Register) => {
    const found = registers.get(register.name);
    return found === undefined ? undefined : registerWords(register, found);
  };
  const [base, prodWords, consWords] = [value(ring.base), value(ring.prod), value(ring.cons)];
  if (base === undefined || prodWords === undefined || consWords === undefined) return undefined;
  const limit = ring.kind === 'cmd' ? caps?.CMDQS : caps?.EVENTQS;
  const log2size = Math.min(ring.base.num(base, 'LOG2SIZE'), limit ?? 19, 19);
  const size = 2 ** log2size;
  const align = BigInt(Math.max(5, log2size + ring.bytesLog2));
  const start = (ring.base.address(base, 'ADDR') >> align) << align;
  const [prod, cons] = [ring.prod.num(prodWords, 'WR') % (2 * size), ring.cons.num(consWords, 'RD') % (2 * size)];
  const used = (prod - cons + 2 * size) % (2 * size);
  let missing = false;
  const entry = (at: number): QueueEntry[] => {
    const index = ((at % size) + size) % size;
    const pa = start + BigInt(index * 2 ** ring.bytesLog2);
    const words = memory.readWords(pa, 2 ** ring.bytesLog2);
    if (words === undefined) {
      missing = true;
      return [];
    }
    return [{ index, pa: hex(pa), words: hexWords(words), record: decode(ring.kind, words, { caps }) }];
  };
  const waiting =
    used > size ? [] : Array.from({ length: Math.min(used, MAX_ENTRIES) }, (_, i) => entry(cons + i)).flat();
  // The place before the first was never written, unless the queue has wrapped.
  const past = Math.min(RECENT, cons >= size ? size : cons % size, size - Math.min(used, size));
  const recent = Array.from({ length: past }, (_, i) => entry(cons - past + i)).flat();
  const code = ring.kind === 'cmd' ? R.CMDQ_CONS.num(consWords, 'ERR') : 0;
  const overflow =
    ring.kind === 'event' && R.EVENTQ_PROD.num(prodWords, 'OVFLG') !== R.EVENTQ_CONS.num(consWords, 'OVACKFLG');
  return {
    name: ring.name,
    base: hex(start),
    log2size,
    prod: prod % size,
    cons: cons % size,
    prodWrap: prod >= size ? 1 : 0,
    consWrap: cons >= size ? 1 : 0,
    used,
    state: used === 0 ? 'empty' : used < size ? 'used' : used === size ? 'full' : 'inconsistent',
    ...(code === 0 ? {} : { error: errorText(code) }),
    ...(overflow ? { overflow: true as const } : {}),
    waiting,
    recent,
    ...(missing ? { missing: true as const } : {}),
  };
}

/** The queues whose registers are known. */
export const queuesOf = (memory: ImageMemory, registers: Registers, caps: Caps | undefined): QueueDump[] =>
  RINGS.flatMap((ring) => ringDump(ring, memory, registers, caps) ?? []);

/** Whether a command is a CMD_SYNC. */
export const isSync = (entry: QueueEntry): boolean => entry.record.name === CMD_SYNC.name;
