import { describe, expect, test } from 'vitest';
import * as spec from '../../spec/registers.ts';
import { linuxNesting, type SmmuConfig } from '../../src/hw/index.ts';
import { BASE, machineWith, Regs } from './harness.ts';

/** Two control pages of four queues. */
const config: SmmuConfig = {
  ...linuxNesting,
  IDR1: { ...linuxNesting.IDR1, ECMDQ: 1 },
  IDR6: { CMDQ_CONTROL_PAGE_LOG2NUMP: 1, CMDQ_CONTROL_PAGE_LOG2NUMQ: 2 },
};
const RING = 0x4060_0000n;
const EN = 0x80000000;
const ENACK = 0x80000000;
const ERR = 1 << 23;

function rig(queue = 5): { r: Regs; at: bigint; issue: (...commands: bigint[]) => void } {
  const r = new Regs(machineWith(config));
  // Pages at 0x20000 and 0x30000, queues 0x4000 apart.
  const at = BASE + 0x20000n + BigInt(queue >> 2) * 0x10000n + BigInt(queue & 3) * 0x4000n;
  const { bus, memory } = r.machine;
  bus.writeq(at, RING | 3n);
  bus.writel(at + 8n, EN);
  const issue = (...commands: bigint[]): void => {
    const prod = bus.readl(at + 8n);
    for (const [i, command] of commands.entries())
      memory.write64(RING + BigInt((((prod & 0xf) + i) % 8) * 16), command);
    bus.writel(at + 8n, (prod & ~0xf) | (((prod & 0xf) + commands.length) & 0xf));
  };
  return { r, at, issue };
}

describe('enhanced Command queues [3.5.6]', () => {
  test('IDR6 and the control page registers say where they are [6.2.5, 6.3.49]', () => {
    const { r } = rig();
    const { bus } = r.machine;
    expect(bus.readl(BASE + 0x190n)).toBe(0x01020000);
    expect([bus.readq(BASE + 0x4000n), bus.readq(BASE + 0x4020n), bus.readq(BASE + 0x4040n)]).toEqual([
      0x20003n,
      0x30003n,
      0n,
    ]);
    expect([bus.readl(BASE + 0x4008n), bus.readl(BASE + 0x400cn)]).toEqual([1, 1]);
  });

  test('ENACK follows EN; commands are consumed without CR0.CMDQEN', () => {
    const { r, at, issue } = rig();
    const { bus } = r.machine;
    expect(bus.readl(at + 12n) >>> 0).toBe(ENACK);
    issue(0x30n, 0x46n);
    expect(bus.readl(at + 12n) >>> 0).toBe(ENACK + 2);
    bus.writel(at + 8n, 2);
    expect(bus.readl(at + 12n)).toBe(2);
  });

  test('an error toggles ERR, sets its reason and CMDQP_ERR; ERRACK restarts this queue only', () => {
    const { r, at, issue } = rig();
    const { bus, memory } = r.machine;
    issue(0x30n, 0xffn, 0x30n);
    expect(bus.readl(at + 12n) >>> 0).toBe(ENACK + (1 << 24) + ERR + 1);
    expect(r.errors).toBe(spec.GERROR.bit('CMDQP_ERR'));
    r.acknowledge();
    expect(bus.readl(at + 12n) & 0xf).toBe(1);
    memory.write64(RING + 16n, 0x46n);
    bus.writel(at + 8n, EN + ERR + 3);
    expect(bus.readl(at + 12n) & 0x8000000f & ~0x80000000).toBe(3);
    expect(r.errors).toBe(0);
  });

  test('an error here does not stop the Command queue, nor the other way round', () => {
    const { r, issue } = rig();
    r.start();
    issue(0xffn);
    r.issue([0x30n, 0n]);
    expect(r.cons).toBe(1);
    const other = rig(0);
    other.r.start();
    other.r.issue([0xffn, 0n]);
    other.issue(0x30n);
    expect(other.r.machine.bus.readl(other.at + 12n) & 0xf).toBe(1);
  });

  test('BASE and CONS are closed while the queue is on; CR1.QUEUE_* waits for it [6.3.11.2]', () => {
    const { r, at } = rig();
    const { bus } = r.machine;
    bus.writeq(at, 0x1000n);
    bus.writel(at + 12n, 7);
    r.write(spec.CR1, 0xfff);
    expect([bus.readq(at), bus.readl(at + 12n) >>> 0, r.read(spec.CR1)]).toEqual([RING | 3n, ENACK, 0xfc0]);
    bus.writel(at + 8n, 0);
    bus.writel(at + 12n, 7);
    r.write(spec.CR1, 0xfff);
    expect([bus.readl(at + 12n), r.read(spec.CR1)]).toEqual([7, 0xfff]);
  });

  test('a fetch outside memory is CERROR_ABT', () => {
    const { r, at } = rig();
    const { bus } = r.machine;
    bus.writel(at + 8n, 0);
    bus.writeq(at, 0x1000n | 3n);
    bus.writel(at + 8n, EN + 1);
    expect((bus.readl(at + 12n) >>> 24) & 7).toBe(2);
  });

  test('needs COHACC and MSI [K6]', () => {
    expect(() => machineWith({ ...config, IDR0: { ...config.IDR0, MSI: 0 } })).toThrow('MSI');
  });
});
