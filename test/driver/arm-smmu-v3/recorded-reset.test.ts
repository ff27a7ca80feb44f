import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { ArmSmmuDriver } from '../../../src/driver/arm-smmu-v3/index.ts';
import { LocalKernel } from '../../../src/driver/local-kernel.ts';
import type { Bus } from '../../../src/hw/index.ts';
import { createMachine, qemuVirt } from '../../../src/hw/index.ts';

const BASE = 0x0905_0000n;

/** The bus, with a line for each register access as the recording has it. */
function recording(bus: Bus, lines: string[]): Bus {
  const line = (kind: string, addr: bigint, size: number, value: bigint | number): void => {
    lines.push(`${kind} 0x${(addr - BASE).toString(16).padStart(5, '0')} ${size} 0x${value.toString(16)}`);
  };
  const reads = { readl: 4, readlRelaxed: 4, readq: 8, readqRelaxed: 8 } as const;
  const writes = { writel: 4, writelRelaxed: 4, writeq: 8, writeqRelaxed: 8 } as const;
  return new Proxy(bus, {
    get(target, name) {
      const value = Reflect.get(target, name, target) as unknown;
      if (typeof value !== 'function') return value;
      const call = value.bind(target) as (...args: unknown[]) => unknown;
      if (name in reads)
        return (addr: bigint) => {
          const got = call(addr) as bigint | number;
          line('R', addr, reads[name as keyof typeof reads], got);
          return got;
        };
      if (name in writes)
        return (addr: bigint, written: bigint | number) => {
          line('W', addr, writes[name as keyof typeof writes], written);
          call(addr, written);
        };
      return call;
    },
  });
}

/** Base addresses are the host's own; bits 5:0 (size, and what must be 0) and 63:56 (hints) are compared. */
const withoutAddress = (line: string): string => {
  const [kind, offset, size, value = ''] = line.split(' ');
  if (size !== '8') return line;
  return `${kind} ${offset} ${size} 0x${(BigInt(value) & 0xff0000000000001fn).toString(16)}`;
};

test('register accesses of probe and reset, in order (linux-driver 1, 2; recorded from Linux 7.2.13)', () => {
  const file = new URL('../../data/linux-7.2-mmio.txt.gz', import.meta.url);
  const all = gunzipSync(readFileSync(file)).toString().split('\n');
  const want = all.slice(0, all.indexOf('R 0x00024 4 0xd') + 1);
  expect(want).toHaveLength(34);
  const { S2P, ...stage1 } = qemuVirt.IDR0 ?? {};
  expect(S2P).toBe(1);
  const machine = createMachine({
    smmus: [{ config: { ...qemuVirt, IDR0: stage1, IDR3: { HAD: 1, RIL: 1, BBML: 'LEVEL_2' } }, base: BASE }],
    ram: [{ base: 0x4000_0000n, size: 0x4000_0000n }],
  });
  const lines: string[] = [];
  // The recorded kernel had CMA with its default alignment, order 8.
  const driver = new ArmSmmuDriver(new LocalKernel(recording(machine.bus, lines)), { maxOrder: 8 });
  driver.probeAll();
  expect(lines.map(withoutAddress)).toEqual(want.map(withoutAddress));
});
