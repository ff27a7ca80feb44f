import { describe, expect, test } from 'vitest';
import { CD } from '../../spec/cd.ts';
import { toQwords } from '../../spec/layout.ts';
import * as spec from '../../spec/registers.ts';
import { linuxNesting, type SmmuConfig } from '../../src/hw/index.ts';
import { BASE, machineWith, Regs } from './harness.ts';
import { mapPage, PAGE_RW, stage2Ste, turnOn, writeSte } from './stage2.ts';

const config: SmmuConfig = {
  ...linuxNesting,
  IDR0: { ...linuxNesting.IDR0, ATOS: 1, VATOS: 1 },
  IDR2: { BA_VATOS: 1 },
};
/** What IPA page n is mapped to. */
const host = (n: number): bigint => 0x4080_0000n + BigInt(n) * 0x1000n;
const STAGE1 = 1n << 10n;
const STAGE2 = 2n << 10n;
const BOTH = 3n << 10n;
const READ = 1n << 8n;
const S1_PAGE = 0x3n | (1n << 6n) | (3n << 8n) | (1n << 10n);

/** Stream 8 nested, VMID 3: VA 0x1000 to IPA 0x7000, VA 0x3000 to IPA 0x9000, which stage 2 does not map. */
function rig(schedule: 'eager' | 'stepped' = 'eager'): Regs {
  const r = new Regs(machineWith(config, { schedule: { mode: schedule } }));
  r.start();
  r.machine.drain();
  turnOn(r);
  r.machine.drain();
  for (const n of [2, 3, 4, 5, 7]) mapPage(r, n, host(n) | PAGE_RW);
  const { memory } = r.machine;
  memory.write64(host(3), 0x4003n);
  memory.write64(host(4), 0x5003n);
  memory.write64(host(5) + 8n, 0x7000n | S1_PAGE);
  memory.write64(host(5) + 24n, 0x9000n | S1_PAGE);
  const cd = {
    V: 1,
    AA64: 1,
    T0SZ: 25,
    TG0: 0,
    IPS: 5,
    EPD1: 1,
    A: 1,
    R: 1,
    ASID: 1,
    TTB0: 0x3000n >> 4n,
    MAIR0: 0xff,
  } as const;
  for (const [i, qword] of toQwords(CD.encode(cd)).entries()) memory.write64(host(2) + BigInt(8 * i), qword);
  writeSte(r, 8, stage2Ste(3, { Config: 'NESTED', S1ContextPtr: 0x2000n >> 6n }));
  return r;
}

function ask(r: Regs, addr: bigint, sid = 8n): bigint {
  r.write64(spec.GATOS_SID, sid);
  r.write64(spec.GATOS_ADDR, addr);
  r.write(spec.GATOS_CTRL, 1);
  expect(r.read(spec.GATOS_CTRL)).toBe(0);
  return r.read64(spec.GATOS_PAR);
}

describe('GATOS [chapter 9]', () => {
  test('both stages, stage 1 alone, stage 2 alone: address, MAIR byte and shareability', () => {
    const r = rig();
    expect(ask(r, 0x1000n | BOTH | READ)).toBe(0xff00_0000_4080_7300n);
    expect(ask(r, 0x1000n | STAGE1 | READ)).toBe(0xff00_0000_0000_7300n);
    expect(ask(r, 0x7000n | STAGE2 | READ)).toBe(0xff00_0000_4080_7300n);
  });

  test('faults: code, and for stage 2 of both stages REASON and the IPA [9.1.4]', () => {
    const r = rig();
    expect(ask(r, 0x2000n | BOTH | READ)).toBe(0x101n);
    expect(ask(r, 0x3000n | BOTH | READ)).toBe(0x9107n);
    expect(ask(r, 0x3000n | STAGE1 | READ)).toBe(0xff00_0000_0000_9300n);
    expect(ask(r, 0x9000n | STAGE2 | READ)).toBe(0x107n);
    mapPage(r, 5, 0n);
    expect(ask(r, 0x1000n | BOTH | READ)).toBe(0x5105n);
    expect(ask(r, 0x1000n | STAGE1 | READ)).toBe(0xb1n);
    mapPage(r, 2, 0n);
    expect(ask(r, 0x1000n | BOTH | READ)).toBe(0x2103n);
    expect(ask(r, 0x1000n | STAGE1 | READ)).toBe(0x91n);
    expect(r.read(spec.EVENTQ_PROD)).toBe(0);
  });

  test('requests that no stream answers, and streams without the stage', () => {
    const r = rig();
    expect(ask(r, 0x1000n | READ)).toBe(0xff1n);
    expect(ask(r, 0x1000n | STAGE2 | READ, 8n | (1n << 52n))).toBe(0xff1n);
    writeSte(r, 8, { V: 1, Config: 'BYPASS' });
    expect(ask(r, 0x1000n | BOTH | READ)).toBe(0xfe1n);
    writeSte(r, 8, stage2Ste(3));
    expect(ask(r, 0x1000n | STAGE1 | READ)).toBe(0xfe1n);
    writeSte(r, 8, { V: 0 });
    expect(ask(r, 0x1000n | BOTH | READ)).toBe(0x41n);
    expect(ask(r, 0x1000n | BOTH | READ, 0x1000n)).toBe(0x21n);
  });

  test('a block: Size, and the lowest set bit of ADDR tells how large [6.3.40]', () => {
    const r = rig();
    writeSte(r, 8, stage2Ste(3));
    r.machine.memory.write64(0x4000_5000n + 8n, 0x4060_0000n | (PAGE_RW & ~2n));
    expect(ask(r, 0x0020_1000n | STAGE2 | READ)).toBe(0xff00_0000_4070_0b00n);
  });

  test('RUN is taken only with SMMUEN; while it runs, the other registers are closed [6.3.37]', () => {
    const off = rig();
    off.write(spec.CR0, 0);
    off.write(spec.GATOS_CTRL, 1);
    expect(off.read(spec.GATOS_CTRL)).toBe(0);
    const r = rig('stepped');
    r.write64(spec.GATOS_SID, 8n);
    r.write64(spec.GATOS_ADDR, 0x1000n | BOTH | READ);
    r.write(spec.GATOS_CTRL, 1);
    r.write64(spec.GATOS_SID, 9n);
    r.write(spec.GATOS_CTRL, 0);
    expect([r.read(spec.GATOS_CTRL), r.read64(spec.GATOS_SID)]).toEqual([1, 8n]);
    r.machine.step('smmu0.gatos');
    expect([r.read(spec.GATOS_CTRL), r.read64(spec.GATOS_PAR)]).toEqual([0, 0xff00_0000_4080_7300n]);
    r.write(spec.GATOS_CTRL, 1);
    r.write(spec.CR0, spec.CR0.bit('CMDQEN'));
    r.machine.step('smmu0.cr0');
    while (r.machine.step('smmu0.cr0'));
    expect([r.read(spec.GATOS_CTRL), r.read64(spec.GATOS_PAR)]).toEqual([0, 0xfd1n]);
  });
});

describe('VATOS [9.1.6]', () => {
  const PAGE = BASE + 0x30000n;
  const asks = (r: Regs, addr: bigint, vmid: number): bigint => {
    const { bus } = r.machine;
    r.write(spec.VATOS_SEL, vmid);
    bus.writeq(PAGE + 0xa08n, 8n);
    bus.writeq(PAGE + 0xa10n, addr);
    bus.writel(PAGE + 0xa00n, 1);
    return bus.readq(PAGE + 0xa18n);
  };

  test('answers stage 1 of streams with the selected VMID, and nothing else', () => {
    const r = rig();
    expect(asks(r, 0x1000n | STAGE1 | READ, 3)).toBe(0xff00_0000_0000_7300n);
    expect(asks(r, 0x1000n | STAGE1 | READ, 4)).toBe(0x41n);
    expect(asks(r, 0x1000n | BOTH | READ, 3)).toBe(0xff1n);
    expect(asks(r, 0x1000n | STAGE2 | READ, 3)).toBe(0xff1n);
    writeSte(r, 8, stage2Ste(3));
    expect(asks(r, 0x1000n | STAGE1 | READ, 3)).toBe(0xfe1n);
    writeSte(r, 8, { V: 1, Config: 'BYPASS' });
    expect(asks(r, 0x1000n | STAGE1 | READ, 3)).toBe(0x41n);
  });
});
