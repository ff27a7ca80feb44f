/** CMD_PREFETCH_CONFIG and CMD_PREFETCH_ADDR (IHI 0070 4.2): hints that never fail and never record events. */
import { CMD_PREFETCH_ADDR, CMD_PREFETCH_CONFIG } from '../../../spec/commands.ts';
import type { Words } from '../../../spec/layout.ts';
import type { CommandTarget, Execute } from './context.ts';

const SSV = CMD_PREFETCH_CONFIG.slot('SSV');
const SUBSTREAM = CMD_PREFETCH_CONFIG.slot('SubstreamID');
const STREAM = CMD_PREFETCH_CONFIG.slot('StreamID');
const SIZE = CMD_PREFETCH_ADDR.slot('Size');
const STRIDE = CMD_PREFETCH_ADDR.slot('Stride');
const PAGE_SHIFT = CMD_PREFETCH_ADDR.field('Address').address ?? 12;

/** Addresses that one command prefetches at most; any number is legal, none included (4.2). */
const MAX_PREFETCHES = 16;

const read = (words: Words, slot: { word: number; shift: number; mask: number }): number =>
  (((words[slot.word] ?? 0) >>> slot.shift) & slot.mask) >>> 0;

/** SubstreamID of the hint, -1 for none; undefined if the hint has no effect (4.1.7, 4.2). */
function substream(words: Words, { caps, options }: CommandTarget): number | undefined {
  if (read(words, SSV) === 0) return -1;
  if (caps.SSIDSIZE === 0) return options.ssvWithoutSubstreams === 'as-ssv0' ? -1 : undefined;
  const id = read(words, SUBSTREAM);
  return id < 2 ** caps.SSIDSIZE ? id : undefined;
}

const usable = (words: Words, target: CommandTarget): boolean =>
  target.options.prefetch === 'done' && target.regs.SMMUEN && read(words, STREAM) < 2 ** target.caps.SIDSIZE;

export const prefetchConfig: Execute = (words, target) => {
  const id = substream(words, target);
  if (id !== undefined && usable(words, target)) target.caches.prefetch(read(words, STREAM), id, null);
  return 0;
};

export const prefetchAddr: Execute = (words, target) => {
  const id = substream(words, target);
  if (id === undefined || !usable(words, target)) return 0;
  const count = Math.min(2 ** read(words, SIZE), MAX_PREFETCHES);
  const stride = 1n << BigInt(PAGE_SHIFT + read(words, STRIDE));
  let address = CMD_PREFETCH_ADDR.address(words, 'Address');
  for (let n = 0; n < count; n++) {
    const hi = Number(BigInt.asUintN(32, address >> 32n));
    target.caches.prefetch(read(words, STREAM), id, { hi, lo: Number(address & 0xffffffffn) });
    address = BigInt.asUintN(64, address + stride);
  }
  return 0;
};
