/** CMD_SYNC (IHI 0070 4.7.3). */
import { CMD_SYNC, SYNC_CS } from '../../../spec/commands.ts';
import type { Words } from '../../../spec/layout.ts';
import { CERROR } from '../../../spec/registers.ts';
import type { CommandTarget, Execute } from './context.ts';

const CS = CMD_SYNC.slot('CS');
const DATA = CMD_SYNC.slot('MSIData');
const ADDRESS = CMD_SYNC.mask(['MSIAddress']);

const csOf = (words: Words): number => ((words[CS.word] ?? 0) >>> CS.shift) & CS.mask;

/** Waits for the earlier commands of the queue. A CMD_ATC_INV that timed out makes it fail, once (3.9.1.4). */
export const sync: Execute = (_, target, stream) => {
  target.settle(stream);
  if (!stream.atcTimeout) return CERROR.CERROR_NONE;
  stream.atcTimeout = false;
  return CERROR.CERROR_ATC_INV_SYNC;
};

/** The completion signal. Given only when CONS already shows that the CMD_SYNC was consumed (3.18). */
export function signalSync(words: Words, { signals }: CommandTarget): void {
  const cs = csOf(words);
  if (cs === SYNC_CS.SIG_SEV) signals.wakeUp();
  if (cs !== SYNC_CS.SIG_IRQ) return;
  const hi = ((words[3] ?? 0) & (ADDRESS[3] ?? 0)) >>> 0;
  const lo = ((words[2] ?? 0) & (ADDRESS[2] ?? 0)) >>> 0;
  signals.sync(hi, lo, (words[DATA.word] ?? 0) >>> 0);
}
