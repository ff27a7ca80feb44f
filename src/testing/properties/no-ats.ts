/** What a driver without ATS may refuse. */
import type { Lab } from '../lab.ts';
import type { GuestCommand } from '../operations/guest-command.ts';

/** Whether the lab's driver is one's own, has no ATS, and so need not know a CMD_ATC_INV that is among these commands. */
export function mayRefuse({ driver, ops, devices }: Lab, commands: readonly GuestCommand[]): boolean {
  if (driver !== null || !commands.some(({ command }) => command === 'ATC_INV')) return false;
  return devices.every(({ dev }) => ops.capable?.(dev, 'ats-not-supported') === true);
}
