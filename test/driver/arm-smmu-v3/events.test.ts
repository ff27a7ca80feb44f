import { describe, expect, test } from 'vitest';
import { fromQwords } from '../../../spec/index.ts';
import type { DriverSettings } from '../../../src/driver/arm-smmu-v3/index.ts';
import { attachGroupHandle, groupOf, iommuMap, newAttachHandle } from '../../../src/driver/iommu/index.ts';
import type { IommuDomain, PageFaultGroup } from '../../../src/driver/iommu/ops.ts';
import { linuxNesting } from '../../../src/hw/index.ts';
import { Rig } from './rig.ts';
import { deviceAttach, deviceDetach, FakeIommufd, hwptData } from './shim.ts';

const DEV = 'dev';
const RW = { read: true, write: true, cache: true };

class Bench extends Rig {
  readonly iommufd = new FakeIommufd();
  constructor(settings: DriverSettings = {}, canStall = false) {
    super({
      machine: {
        smmus: [{ config: linuxNesting, base: 0x0905_0000n }],
        endpoints: [{ name: DEV, streamIds: [0x28], canWbs: true, canStall }],
      },
      settings: { disableMsiPolling: true, cpu: { vhe: false }, ...settings },
    });
    this.boot();
    deviceDetach(this, this.dev);
    this.commands();
    this.kernel.messages.length = 0;
  }

  get dev() {
    return this.device(DEV);
  }

  dma(iova: bigint) {
    const result = this.machine.endpoint(DEV).write(iova, Uint8Array.of(1, 2, 3, 4));
    this.kernel.runInterrupts();
    return result;
  }

  get log(): string {
    return this.kernel.messages.map(({ text }) => text).join('\n');
  }

  nested(vste: readonly bigint[], vsid: bigint | null = 0x123n): IommuDomain {
    const s2 = this.driver.domainAllocPagingFlags(this.dev, { nestParent: true }, null);
    iommuMap(s2, 0x8000_0000n, 0x6000_0000n, 0x10_0000n, RW);
    const viommu = this.iommufd.viommu(this, this.dev, s2);
    if (vsid !== null) this.iommufd.vdevice(viommu, this.dev, vsid);
    return this.iommufd.nested(viommu, hwptData(fromQwords(vste)));
  }
}

describe('events of a VM (linux-driver 9.7)', () => {
  test('a stage 1 event goes to the vIOMMU with the vSID, everything else unchanged', () => {
    const bench = new Bench();
    deviceAttach(bench, bench.nested([0x8000100bn, 0xd6n], 0x5_0000_0123n), bench.dev);
    // CD all zero: C_BAD_CD.
    expect(bench.dma(0x1000n).status).toBe('abort');
    expect(bench.iommufd.events.map(({ type, words }) => [type, [...words]])).toEqual([
      [1, [0x0a, 0x123, 0, 0, 0, 0, 0, 0]],
    ]);
    expect(bench.log).toBe('');
  });

  test('a stage 2 event stays with the host, as does one of a device without a vDEVICE', () => {
    const bench = new Bench();
    deviceAttach(bench, bench.nested([0x9n, 0n]), bench.dev);
    bench.dma(0x1000n);
    expect(bench.iommufd.events).toEqual([]);
    expect(bench.log).toContain('event: F_TRANSLATION client: dev sid: 0x28');
    const bare = new Bench();
    deviceAttach(bare, bare.nested([0x1n, 0n], null), bare.dev);
    bare.dma(0x1000n);
    expect(bare.iommufd.events).toEqual([]);
  });

  test('an event still in the queue when the device leaves goes to the VM it was of (DET-5); with the quirk to the host', () => {
    for (const quirk of [false, true]) {
      const bench = new Bench(quirk ? { quirks: ['events-not-drained'] } : {});
      deviceAttach(bench, bench.nested([0x8000100bn, 0xd6n]), bench.dev);
      bench.machine.endpoint(DEV).write(0x1000n, Uint8Array.of(1));
      deviceDetach(bench, bench.dev);
      expect(bench.iommufd.events).toHaveLength(quirk ? 0 : 1);
    }
  });

  test('after the event queue overflowed: logged, acknowledged, and events flow again', () => {
    // Order 0: an event queue of 2^7 entries.
    const bench = new Bench({ maxOrder: 0 });
    const entries = 2 ** bench.smmu.evtq.setup.log2size;
    expect(entries).toBe(128);
    deviceAttach(bench, bench.driver.domainAllocPagingFlags(bench.dev, {}, null), bench.dev);
    const endpoint = bench.machine.endpoint(DEV);
    for (let i = 0; i <= entries; i++) endpoint.write(0x1000n * BigInt(i + 1), Uint8Array.of(1));
    bench.kernel.runInterrupts();
    expect(bench.log).toContain('EVTQ overflow detected -- events lost');
    // OVACKFLG follows OVFLG.
    const prod = bench.machine.bus.readl(0x0905_0000n + 0x100a8n);
    expect(prod >>> 31).toBe(1);
    expect(bench.machine.bus.readl(0x0905_0000n + 0x100acn)).toBe(prod);
    bench.kernel.messages.length = 0;
    bench.dma(0x7000n);
    expect(bench.log).toContain('iova: 0x7000');
    expect(bench.log).not.toContain('overflow');
  });

  test('register accesses of one event: PROD, CONS, PROD (linux-driver 12)', () => {
    const bench = new Bench();
    deviceAttach(bench, bench.driver.domainAllocPagingFlags(bench.dev, {}, null), bench.dev);
    bench.machine.endpoint(DEV).write(0x1000n, Uint8Array.of(1));
    const points: string[] = [];
    bench.kernel.onPoint((point) => point.startsWith('mmio:') && points.push(point));
    bench.kernel.runInterrupts();
    expect(points).toEqual(['mmio:evtq:prod', 'mmio:evtq:cons', 'mmio:evtq:prod']);
  });
});

describe('stalls (linux-driver 12)', () => {
  const withHandler = (answer: 'success' | 'invalid' | null, settings: DriverSettings = {}) => {
    const bench = new Bench(settings, true);
    const groups: PageFaultGroup[] = [];
    const domain = bench.driver.domainAllocPagingFlags(bench.dev, {}, null);
    domain.iopfHandler = (group) => {
      groups.push(group);
      if (answer === 'success') iommuMap(domain, 0x1000n, 0x6000_0000n, 0x1000n, RW);
      if (answer !== null) group.respond(answer);
    };
    const [iommu] = bench.core.iommus;
    expect(iommu).toBeDefined();
    attachTo(bench, domain);
    bench.commands();
    return { bench, domain, groups };
  };
  const attachTo = (bench: Bench, domain: IommuDomain): void => {
    attachGroupHandle(domain, groupOf(bench.dev), newAttachHandle(domain, null));
    bench.kernel.runInterrupts();
  };

  test('success: RESUME Retry without CMD_SYNC, and the access ends well', () => {
    const { bench, groups } = withHandler('success');
    const result = bench.dma(0x1000n);
    expect(groups).toHaveLength(1);
    expect(groups[0]?.faults[0]).toMatchObject({ addr: 0x1000n, write: true, lastPage: true });
    const resumes = bench.commands().filter((command) => command.slice(14, 16) === '44');
    expect(resumes).toEqual([expect.stringMatching(/^0000002800001044,/)]);
    expect(result.status === 'stall' ? result.pending.result.status : result.status).toBe('ok');
  });

  test('refused: RESUME Abort', () => {
    const { bench } = withHandler('invalid');
    const result = bench.dma(0x1000n);
    expect(bench.commands().filter((command) => command.slice(14, 16) === '44')).toEqual([
      expect.stringMatching(/^0000002800002044,/),
    ]);
    expect(result.status === 'stall' ? result.pending.result.status : result.status).toBe('abort');
  });

  test('nobody handles faults: the stall is answered by abort', () => {
    const bench = new Bench({}, true);
    attachTo(bench, bench.driver.domainAllocPagingFlags(bench.dev, {}, null));
    const result = bench.dma(0x1000n);
    expect(result.status === 'stall' ? result.pending.result.status : result.status).toBe('abort');
  });

  test('an unanswered stall ends when its domain is left: RESUME Abort, then STALL_TERM, for nothing can stall any more (DET-1, 4.7.2.1)', () => {
    const { bench, groups } = withHandler(null);
    const result = bench.dma(0x1000n);
    expect(result.status).toBe('stall');
    expect(groups).toHaveLength(1);
    bench.commands();
    deviceAttach(bench, bench.driver.blockedDomain, bench.dev);
    const ends = bench.commands().filter((command) => /^4[45]$/.test(command.slice(14, 16)));
    expect(ends).toEqual([expect.stringMatching(/^0000002800002044,/), expect.stringMatching(/^0000002800000045,/)]);
    expect(result.status === 'stall' && result.pending.result.status).toBe('abort');
    groups[0]?.respond('success');
    expect(bench.commands()).toEqual([]);
  });

  test('a domain that follows may stall as well: no STALL_TERM, which could end its stalls (4.7.2)', () => {
    const { bench, groups } = withHandler(null);
    const result = bench.dma(0x1000n);
    bench.commands();
    deviceAttach(bench, bench.driver.domainAllocPagingFlags(bench.dev, {}, null), bench.dev);
    const ends = bench.commands().filter((command) => /^4[45]$/.test(command.slice(14, 16)));
    expect(ends).toEqual([expect.stringMatching(/^0000002800002044,/)]);
    expect(result.status === 'stall' && result.pending.result.status).toBe('abort');
    expect(groups).toHaveLength(1);
  });

  test('an answer that comes too late does not reach the transaction that has its STAG now (4.7.1, DET-3)', () => {
    const { bench, domain, groups } = withHandler(null);
    bench.dma(0x1000n);
    // Left and taken again while the first fault has no answer.
    const { blockedDomain } = bench.driver;
    blockedDomain.ops.attachDev(blockedDomain, bench.dev, domain);
    domain.ops.attachDev(domain, bench.dev, blockedDomain);
    const second = bench.dma(0x2000n);
    expect(groups.map(({ faults }) => faults[0]?.grpid)).toEqual([0, 0]);
    bench.commands();
    groups[0]?.respond('success');
    expect(bench.commands()).toEqual([]);
    expect(second.status).toBe('stall');
  });

  test("quirk 'stalls-on-detach': no STALL_TERM, the fault's own answer ends it", () => {
    const { bench, groups } = withHandler(null, { quirks: ['stalls-on-detach'] });
    bench.dma(0x1000n);
    bench.commands();
    deviceAttach(bench, bench.driver.blockedDomain, bench.dev);
    expect(groups).toHaveLength(1);
    const opcodes = bench.commands().map((command) => command.slice(14, 16));
    expect(opcodes).not.toContain('45');
    expect(opcodes).toContain('44');
  });
});

describe('errors of the command queue (linux-driver 4.6)', () => {
  test('an illegal command is logged and becomes a CMD_SYNC; what follows it is done', () => {
    const bench = new Bench();
    const { cmdq } = bench.smmu;
    const bad = Uint32Array.of(0xff, 0, 0, 0);
    expect(cmdq.issue([bad], true)).toBe(true);
    expect(bench.commands()).toEqual(['000000000fc02046,0000000000000000', '000000000fc02046,0000000000000000']);
    expect(bench.log).toMatch(/CMDQ error \(cons 0x[0-9a-f]{8}\): Illegal command/);
    expect(bench.machine.bus.readl(0x0905_0060n)).toBe(bench.machine.bus.readl(0x0905_0064n));
  });

  test('the ring wraps, and a full ring is waited for', () => {
    const bench = new Bench({ maxOrder: 0 });
    const { cmdq } = bench.smmu;
    expect(cmdq.log2size).toBe(8);
    const nop = Uint32Array.of(0x01, 0x28, 0, 0);
    const before = cmdq.prod;
    for (let i = 0; i < 40; i++)
      expect(
        cmdq.issue(
          Array.from({ length: 60 }, () => nop),
          i % 2 === 0,
        ),
      ).toBe(true);
    expect(cmdq.prod).toBe((before + 40 * 60 + 20) % 512);
    expect(bench.machine.bus.readl(0x0905_009cn) & 0xfffff).toBe(cmdq.prod);
  });
});
