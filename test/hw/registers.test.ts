import { describe, expect, test } from 'vitest';
import * as spec from '../../spec/registers.ts';
import { linuxNesting, minimal, qemuVirt, type SmmuConfig } from '../../src/hw/index.ts';
import { BASE, machineWith, Regs } from './harness.ts';

const regsOf = (config: SmmuConfig = linuxNesting, stepped = false): Regs =>
  new Regs(machineWith(config, stepped ? { schedule: { mode: 'stepped' } } : {}));

describe('reset values [3.11, 6.3]', () => {
  test('enables, acknowledges, errors and interrupt enables are 0', () => {
    const r = regsOf();
    for (const register of [
      spec.CR0,
      spec.CR0ACK,
      spec.IRQ_CTRL,
      spec.IRQ_CTRLACK,
      spec.GERROR,
      spec.GERRORN,
      spec.STATUSR,
    ])
      expect([register.name, r.read(register)]).toEqual([register.name, 0]);
  });

  test('UNKNOWN ones read what the option says, in writable bits only', () => {
    const r = regsOf({ ...linuxNesting, options: { unknownReset: 0xffffffff } });
    expect(r.read(spec.CR1)).toBe(0xfff);
    expect(r.read64(spec.STRTAB_BASE)).toBe(0x4000ffffffffffc0n);
    expect(r.read(spec.CR0)).toBe(0);
    expect(r.read(spec.GBPA) >>> 31).toBe(0);
  });

  test('linuxNesting shows v3.2: the reference profile with ATS, PRI, ATSRECERR and a PRI queue of 2^19', () => {
    const r = regsOf();
    const ids = [0x0, 0x4, 0xc, 0x14, 0x1c].map((offset) => r.machine.bus.readl(BASE + BigInt(offset)));
    expect(ids).toEqual([0x08cd361b, 0x0a739d10, 0x1514, 0x00100075, 2]);
  });
});

test("QEMU's component identification registers [6.3.170]", () => {
  const r = regsOf(qemuVirt);
  const ids = Array.from({ length: 12 }, (_, i) => r.machine.bus.readl(BASE + 0xfd0n + BigInt(4 * i)));
  expect(ids).toEqual([0x04, 0, 0, 0, 0x84, 0xb4, 0xf0, 0x10, 0x0d, 0xf0, 0x05, 0xb1]);
});

describe('access rules [6.2]', () => {
  test('read-only registers and undefined offsets ignore writes', () => {
    const r = regsOf();
    r.machine.bus.writel(BASE, 0xffffffff);
    r.machine.bus.writel(BASE + 0x1f0n, 0xffffffff);
    r.machine.bus.writel(BASE + 0x8020n, 0xffffffff);
    expect(r.machine.bus.readl(BASE)).toBe(0x08cd361b);
    expect(r.machine.bus.readl(BASE + 0x1f0n)).toBe(0);
    expect(r.machine.bus.readl(BASE + 0x8020n)).toBe(0);
  });

  test('each half of a 64-bit register takes 32-bit accesses of its own', () => {
    const r = regsOf();
    const at = r.address(spec.CMDQ_BASE);
    r.machine.bus.writel(at, 0x12345678);
    r.machine.bus.writel(at + 4n, 0x40000004);
    expect(r.read64(spec.CMDQ_BASE)).toBe(0x4000000412345678n);
    expect([r.machine.bus.readl(at), r.machine.bus.readl(at + 4n)]).toEqual([0x12345678, 0x40000004]);
  });

  test('address bits at and above OAS, and reserved bits, are not stored', () => {
    const r = regsOf({ ...linuxNesting, IDR5: { ...linuxNesting.IDR5, OAS: 'BITS_40' } });
    r.write64(spec.STRTAB_BASE, 0xffffffffffffffffn);
    r.write64(spec.CMDQ_BASE, 0xffffffffffffffffn);
    r.write(spec.STRTAB_BASE_CFG, 0xffffffff);
    expect(r.read64(spec.STRTAB_BASE)).toBe(0x400000ffffffffc0n);
    expect(r.read64(spec.CMDQ_BASE)).toBe(0x400000ffffffffffn);
    expect(r.read(spec.STRTAB_BASE_CFG)).toBe(0x000307ff);
  });

  test('misaligned accesses read 0 and write nothing; nothing there reads all ones', () => {
    const r = regsOf();
    r.machine.bus.writel(BASE + 0x22n, 0x8);
    r.machine.bus.writeq(BASE + 0x94n, 0xffffffffffffffffn);
    expect(r.read(spec.CR0)).toBe(0);
    expect(r.read64(spec.CMDQ_BASE)).toBe(0n);
    expect(r.machine.bus.readl(BASE + 0x22n)).toBe(0);
    expect(r.machine.bus.readl(0x1000n)).toBe(0xffffffff);
    expect(r.machine.bus.readq(0x1000n)).toBe(0xffffffffffffffffn);
  });

  test('a 64-bit access over two 32-bit registers reaches both, or none by the option', () => {
    const both = regsOf();
    both.write64(spec.CMDQ_BASE, 8n);
    both.machine.bus.writeq(BASE + 0x98n, 0x0000000500000007n);
    expect(both.machine.bus.readq(BASE + 0x98n)).toBe(0x0000000500000007n);
    const none = regsOf({ ...linuxNesting, options: { wideOverPair: 'razwi' } });
    none.machine.bus.writeq(BASE + 0x98n, 0x0000000500000007n);
    expect([none.read(spec.CMDQ_PROD), none.machine.bus.readq(BASE + 0x98n)]).toEqual([0, 0n]);
  });

  test('queue indices of page 1 answer on page 0 too, or read 0 there by the option', () => {
    const alias = regsOf();
    alias.write(spec.EVENTQ_CONS, 5);
    expect(alias.machine.bus.readl(BASE + 0xacn)).toBe(5);
    const razwi = regsOf({ ...linuxNesting, options: { page0QueueAlias: 'razwi' } });
    razwi.write(spec.EVENTQ_CONS, 5);
    expect([razwi.machine.bus.readl(BASE + 0xacn), razwi.read(spec.EVENTQ_CONS)]).toEqual([0, 5]);
  });

  test("registers of absent features read 0: no MSI, no PRI on QEMU's SMMU", () => {
    const r = regsOf(qemuVirt);
    r.write64(spec.GERROR_IRQ_CFG0, 0x1000n);
    r.write(spec.PRIQ_CONS, 3);
    r.write(spec.CR0, spec.CR0.bit('PRIQEN', 'ATSCHK', 'VMW'));
    r.write(spec.CR2, 0xf);
    expect(r.read64(spec.GERROR_IRQ_CFG0)).toBe(0n);
    expect(r.read(spec.PRIQ_CONS)).toBe(0);
    expect([r.read(spec.CR0), r.read(spec.CR0ACK)]).toEqual([0, 0]);
    expect(r.read(spec.CR2)).toBe(spec.CR2.bit('RECINVSID'));
  });
});

describe('CR0 and CR0ACK [6.3.9]', () => {
  test('the write reads back at once, the acknowledge follows field by field', () => {
    const r = regsOf(linuxNesting, true);
    r.write(spec.CR0, spec.CR0.bit('SMMUEN', 'CMDQEN', 'EVENTQEN'));
    expect([r.read(spec.CR0), r.read(spec.CR0ACK)]).toEqual([0xd, 0]);
    r.machine.step('smmu0.cr0');
    const first = r.read(spec.CR0ACK);
    expect([1, 4, 8]).toContain(first);
    r.machine.drain();
    expect(r.read(spec.CR0ACK)).toBe(0xd);
  });

  test('a field in transition keeps the first value; with the other choice it may be taken back', () => {
    const first = regsOf(linuxNesting, true);
    first.write(spec.CR0, 8);
    first.write(spec.CR0, 0);
    expect(first.read(spec.CR0)).toBe(8);
    first.machine.drain();
    expect(first.read(spec.CR0ACK)).toBe(8);
    const cease = regsOf({ ...linuxNesting, options: { handshakeRewrite: 'cease-if-reverted' } }, true);
    cease.write(spec.CR0, 8);
    cease.write(spec.CR0, 0);
    cease.machine.drain();
    expect([cease.read(spec.CR0), cease.read(spec.CR0ACK)]).toEqual([0, 0]);
  });

  test('reserved bits never show', () => {
    const r = regsOf();
    r.write(spec.CR0, 0xfffffe20);
    expect([r.read(spec.CR0), r.read(spec.CR0ACK)]).toEqual([0, 0]);
  });
});

describe('guards: a write while closed is ignored [6.3.11 to 6.3.29]', () => {
  const closed = (enable: number): Regs => {
    const r = regsOf();
    r.write(spec.CR0, enable);
    return r;
  };

  test('SMMUEN closes CR1.TABLE_*, CR2, STRTAB_BASE and STRTAB_BASE_CFG', () => {
    const r = closed(spec.CR0.bit('SMMUEN'));
    r.write(spec.CR1, 0xfff);
    r.write(spec.CR2, 0xf);
    r.write64(spec.STRTAB_BASE, 0x1000n);
    r.write(spec.STRTAB_BASE_CFG, 0x5);
    expect(r.read(spec.CR1)).toBe(0x3f);
    expect([r.read(spec.CR2), r.read64(spec.STRTAB_BASE), r.read(spec.STRTAB_BASE_CFG)]).toEqual([0, 0n, 0]);
    r.write(spec.CR0, 0);
    r.write(spec.CR2, 0xf);
    expect(r.read(spec.CR2)).toBe(spec.CR2.bit('RECINVSID', 'E2H', 'REC_CFG_ATS'));
  });

  test('CMDQEN closes CMDQ_BASE, CMDQ_CONS and CR1.QUEUE_*, not CMDQ_PROD', () => {
    const r = closed(spec.CR0.bit('CMDQEN'));
    r.write64(spec.CMDQ_BASE, 0x1005n);
    r.write(spec.CMDQ_CONS, 1);
    r.write(spec.CR1, 0xfff);
    expect([r.read64(spec.CMDQ_BASE), r.read(spec.CMDQ_CONS), r.read(spec.CR1)]).toEqual([0n, 0, 0xfc0]);
  });

  test('EVENTQEN closes EVENTQ_BASE and EVENTQ_PROD, not EVENTQ_CONS', () => {
    const r = closed(spec.CR0.bit('EVENTQEN'));
    r.write64(spec.EVENTQ_BASE, 0x1005n);
    r.write(spec.EVENTQ_PROD, 1);
    r.write(spec.EVENTQ_CONS, 1);
    expect([r.read64(spec.EVENTQ_BASE), r.read(spec.EVENTQ_PROD), r.read(spec.EVENTQ_CONS)]).toEqual([0n, 0, 1]);
  });

  test('a field that is still being switched off counts as on', () => {
    const r = regsOf(linuxNesting, true);
    r.write(spec.CR0, 1);
    r.machine.drain();
    r.write(spec.CR0, 0);
    r.write(spec.CR2, 2);
    expect(r.read(spec.CR2)).toBe(0);
    r.machine.drain();
    r.write(spec.CR2, 2);
    expect(r.read(spec.CR2)).toBe(2);
  });

  test('each interrupt enable closes its own *_IRQ_CFG0 to 2', () => {
    const r = regsOf();
    r.write(spec.IRQ_CTRL, spec.IRQ_CTRL.bit('GERROR_IRQEN'));
    expect(r.read(spec.IRQ_CTRLACK)).toBe(1);
    r.write64(spec.GERROR_IRQ_CFG0, 0x1000n);
    r.write(spec.GERROR_IRQ_CFG1, 7);
    r.write(spec.GERROR_IRQ_CFG2, 0x3f);
    r.write64(spec.EVENTQ_IRQ_CFG0, 0x1000n);
    expect([r.read64(spec.GERROR_IRQ_CFG0), r.read(spec.GERROR_IRQ_CFG1), r.read(spec.GERROR_IRQ_CFG2)]).toEqual([
      0n,
      0,
      0,
    ]);
    expect(r.read64(spec.EVENTQ_IRQ_CFG0)).toBe(0x1000n);
  });

  test('before v3.2 hardware may take such writes: an option', () => {
    const r = new Regs(machineWith({ ...qemuVirt, options: { ...qemuVirt.options, guardedWrites: 'taken' } }));
    r.write(spec.CR0, 1);
    r.write64(spec.STRTAB_BASE, 0x1000n);
    expect(r.read64(spec.STRTAB_BASE)).toBe(0x1000n);
    const v32 = new Regs(machineWith({ ...linuxNesting, options: { guardedWrites: 'taken' } }));
    v32.write(spec.CR0, 1);
    v32.write64(spec.STRTAB_BASE, 0x1000n);
    expect(v32.read64(spec.STRTAB_BASE)).toBe(0n);
  });
});

describe('GBPA [6.3.14]', () => {
  test('a write without Update is ignored; with it the fields read back and Update clears', () => {
    const r = regsOf();
    r.write(spec.GBPA, spec.GBPA.bit('ABORT'));
    expect(r.read(spec.GBPA)).toBe(0);
    r.write(spec.GBPA, spec.GBPA.bit('ABORT', 'Update'));
    expect(r.read(spec.GBPA)).toBe(spec.GBPA.bit('ABORT'));
  });

  test('while Update is 1 a second write is ignored', () => {
    const r = regsOf(linuxNesting, true);
    r.write(spec.GBPA, 0x80100000);
    r.write(spec.GBPA, 0x80000000);
    expect(r.read(spec.GBPA)).toBe(0x80100000);
    r.machine.step('smmu0.gbpa');
    expect(r.read(spec.GBPA)).toBe(0x00100000);
  });
});

describe('queue index registers [6.3.26 to 6.3.29]', () => {
  test('hardware-owned indices show no bits above the wrap bit, software-owned ones keep what was written', () => {
    const r = regsOf();
    r.write64(spec.CMDQ_BASE, 4n);
    r.write64(spec.EVENTQ_BASE, 4n);
    r.write(spec.CMDQ_CONS, 0xfffff);
    r.write(spec.EVENTQ_PROD, 0x800fffff);
    r.write(spec.CMDQ_PROD, 0xffffffff);
    expect([r.read(spec.CMDQ_CONS), r.read(spec.EVENTQ_PROD), r.read(spec.CMDQ_PROD)]).toEqual([
      0x1f, 0x8000001f, 0xfffff,
    ]);
  });

  test('LOG2SIZE reads back as written and is capped by IDR1 in effect', () => {
    const r = regsOf(minimal);
    r.write64(spec.CMDQ_BASE, 0x4010001fn);
    expect(r.read64(spec.CMDQ_BASE)).toBe(0x4010001fn);
    r.write(spec.CMDQ_CONS, 0xfffff);
    expect(r.read(spec.CMDQ_CONS)).toBe(0x1ff);
  });
});
