import { expect, test } from 'vitest';
import { GERROR } from '../../../spec/index.ts';
import { handleGlobalErrors } from '../../../src/driver/arm-smmu-v3/events.ts';
import { Rig } from './rig.ts';

const GERROR_AT = 0x0905_0060n;

/** A rig on which GERROR reads with one more error. */
function failing(error: 'SFM_ERR' | 'EVENTQ_ABT_ERR'): Rig {
  const rig = new Rig({ settings: { disableMsiPolling: true } }).boot();
  const { kernel } = rig;
  const read32 = kernel.read32.bind(kernel);
  kernel.read32 = (point, addr) => (read32(point, addr) ^ (addr === GERROR_AT ? GERROR.bit(error) : 0)) >>> 0;
  return rig;
}

test('Service Failure Mode switches the SMMU off and is acknowledged (linux-driver 4.6)', () => {
  const rig = failing('SFM_ERR');
  handleGlobalErrors(rig.smmu);
  expect(rig.machine.bus.readl(0x0905_0020n)).toBe(0);
  expect(rig.kernel.messages.map(({ text }) => text).join('\n')).toContain('Service Failure Mode');
});

test('the handler goes on when the SMMU does not follow: GERRORN is written', () => {
  const rig = failing('SFM_ERR');
  const points: string[] = [];
  rig.kernel.onPoint((point) => points.push(point));
  rig.kernel.failNth(1, 'poll:CR0ACK');
  handleGlobalErrors(rig.smmu);
  expect(points.at(-1)).toBe('mmio:gerror:GERRORN');
});

test('an aborted Event queue write is logged and acknowledged, and the SMMU stays on', () => {
  const rig = failing('EVENTQ_ABT_ERR');
  handleGlobalErrors(rig.smmu);
  expect(rig.machine.bus.readl(0x0905_0020n) & 1).toBe(1);
  expect(rig.kernel.messages.map(({ text }) => text).join('\n')).toContain('EVTQ write aborted');
});
