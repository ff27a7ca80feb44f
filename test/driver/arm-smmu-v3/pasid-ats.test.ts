import { describe, expect, test } from 'vitest';
import { CD, fromQwords, STE } from '../../../spec/index.ts';
import { PCI_ATS, PCI_PASID } from '../../../spec/pci-capabilities.ts';
import type { DriverSettings } from '../../../src/driver/arm-smmu-v3/index.ts';
import { iommuMap, iommuUnmap } from '../../../src/driver/iommu/index.ts';
import type { IommuDomain, MmStruct } from '../../../src/driver/iommu/ops.ts';
import { linuxNesting } from '../../../src/hw/index.ts';
import { Rig } from './rig.ts';
import { deviceAttach, deviceDetach, FakeIommufd, hwptData } from './shim.ts';

const DEV = 'dev';
const BDF = 0x08;
const RW = { read: true, write: true, cache: true };
const config = { ...linuxNesting, IDR0: { ...linuxNesting.IDR0, ATS: 1, PRI: 1 } } as const;

/** One device with ATS and PASIDs, blocked. The CPU has no VHE, so that commands are the plain ones. */
class Bench extends Rig {
  readonly iommufd = new FakeIommufd();
  constructor(settings: DriverSettings = {}, ssidBits = 12) {
    super({
      machine: {
        smmus: [{ config, base: 0x0905_0000n }],
        endpoints: [{ name: DEV, streamIds: [BDF], bdf: BDF, ats: true, pri: true, canWbs: true, ssidBits }],
      },
      settings: { disableMsiPolling: true, cpu: { vhe: false }, ...settings },
    });
    this.boot();
    deviceDetach(this, this.dev);
    this.commands();
  }

  get dev() {
    return this.device(DEV);
  }

  get master() {
    const master = this.smmu.streams.get(BDF)?.master;
    if (master === undefined) throw new Error('no master');
    return master;
  }

  s1(): IommuDomain {
    return this.driver.domainAllocPagingFlags(this.dev, {}, null);
  }

  s2(): IommuDomain {
    return this.driver.domainAllocPagingFlags(this.dev, { nestParent: true }, null);
  }

  attachDev(domain: IommuDomain): void {
    deviceAttach(this, domain, this.dev);
  }

  setPasid(domain: IommuDomain, pasid: number, old: IommuDomain | null = null): void {
    domain.ops.setDevPasid?.(domain, this.dev, pasid, old);
  }

  removePasid(domain: IommuDomain, pasid: number): void {
    const blocked = this.driver.blockedDomain;
    blocked.ops.setDevPasid?.(blocked, this.dev, pasid, domain);
  }

  /** Short names of what was queued: kind, and the operands that matter. */
  did(): string[] {
    return this.commands().map((command) => {
      const words = fromQwords(command.split(',').map((word) => BigInt(`0x${word}`)));
      const w0 = (BigInt(words[1] ?? 0) << 32n) | BigInt(words[0] ?? 0);
      const w1 = (BigInt(words[3] ?? 0) << 32n) | BigInt(words[2] ?? 0);
      const ssid = Number((w0 >> 12n) & 0xfffffn);
      switch (Number(w0 & 0xffn)) {
        case 0x46:
          return '!';
        case 0x03:
          return `CFGI_STE${(w1 & 1n) === 1n ? '' : ' leaf=0'}`;
        case 0x05:
          return `CFGI_CD ${ssid}${(w1 & 1n) === 1n ? '' : ' leaf=0'}`;
        case 0x01:
          return 'PREFETCH';
        case 0x40:
          return `ATC ${((w0 >> 11n) & 1n) === 1n ? ssid : '-'} 0x${w1.toString(16)}`;
        case 0x11:
          return `NH_ASID ${w0 >> 48n}`;
        case 0x28:
          return `S12_VMALL ${(w0 >> 32n) & 0xffffn}`;
        default:
          return `${command}`;
      }
    });
  }

  get atsOn(): boolean {
    const word = this.machine.bus.pciRead32(BDF, (this.master.atsOffset ?? 0) + 4);
    return PCI_ATS.get(Uint32Array.of(word), 'Enable') === 1n;
  }

  get eats(): number {
    return STE.num(fromQwords(this.ste(BDF)), 'EATS');
  }
}

const cd = (n: number, ssid = 0): string[] => Array.from({ length: n }, () => [`CFGI_CD ${ssid}`, '!']).flat();
const ste = (n: number): string[] => [...Array.from({ length: n }, () => ['CFGI_STE', '!']).flat(), 'PREFETCH'];
const ALL = 'ATC - 0x34';

describe('PASID sequences (linux-driver 13, PASID)', () => {
  const plain = (ssidBits = 8, settings: DriverSettings = {}): Bench => {
    const bench = new Bench(settings, ssidBits);
    // Without ATS the sequences are those of the table without "ATC".
    Object.defineProperty(bench.master, 'atsSupported', { value: false });
    return bench;
  };

  test('attach with the RID on stage 1: CD 2, no STE write', () => {
    const bench = plain();
    bench.attachDev(bench.s1());
    bench.did();
    bench.setPasid(bench.s1(), 5);
    expect(bench.did()).toEqual(cd(2, 5));
  });

  test.each([
    ['blocked', 'TERMINATE'],
    ['identity', 'BYPASS'],
  ] as const)(
    'RID %s, first PASID: CD 2, STE 2 with S1DSS=%s; further ones CD 2; the last one gone: plain STE',
    (kind, dss) => {
      const bench = plain();
      bench.attachDev(kind === 'blocked' ? bench.driver.blockedDomain : bench.driver.identityDomain);
      const before = bench.ste(BDF);
      bench.did();
      const one = bench.s1();
      const two = bench.s1();
      bench.setPasid(one, 5);
      // With ATTR_TYPES_OVR, bypass has SHCFG too: two words beside Config.
      expect(bench.did()).toEqual([...cd(2, 5), ...ste(2)]);
      expect(STE.valueName('S1DSS', STE.get(fromQwords(bench.ste(BDF)), 'S1DSS'))).toBe(dss);
      bench.setPasid(two, 6);
      expect(bench.did()).toEqual(cd(2, 6));
      bench.removePasid(one, 5);
      expect(bench.did()).toEqual([...cd(2, 5), `NH_ASID ${asid(one)}`, '!']);
      bench.removePasid(two, 6);
      // Re-attaching the RID's domain also clears CD 0, which nothing had used.
      expect(bench.did()).toEqual([...cd(2, 6), `NH_ASID ${asid(two)}`, '!', ...ste(2)]);
      expect(bench.ste(BDF)).toEqual(before);
    },
  );

  const asid = (domain: IommuDomain): number => (domain as unknown as { asid: number }).asid;

  test('replace on the PASID: CD 3, then the old ASID', () => {
    const bench = plain();
    bench.attachDev(bench.s1());
    const old = bench.s1();
    bench.setPasid(old, 5);
    bench.did();
    bench.setPasid(bench.s1(), 5, old);
    expect(bench.did()).toEqual([...cd(3, 5), `NH_ASID ${asid(old)}`, '!']);
  });

  test('RID blocked to stage 1 while PASIDs exist: CD 2, STE 1', () => {
    const bench = plain();
    bench.setPasid(bench.s1(), 5);
    bench.did();
    bench.attachDev(bench.s1());
    expect(bench.did()).toEqual([...cd(2), ...ste(1)]);
  });

  test('the RID leaves stage 1 while PASIDs exist: CD 0 is gone before its ASID is flushed (3.21.3, 7.3.9); not so with the quirk', () => {
    const left = (quirks: DriverSettings['quirks'] = []): string[] => {
      const bench = plain(8, { quirks });
      const domain = bench.s1();
      bench.attachDev(domain);
      bench.setPasid(bench.s1(), 5);
      bench.did();
      bench.attachDev(bench.driver.blockedDomain);
      return bench.did();
    };
    const flush = ['NH_ASID 2', '!'];
    expect(left()).toEqual([...ste(1), ...cd(2), ...flush]);
    expect(left(['cd0-after-tlbi'])).toEqual([...ste(1), ...flush, ...cd(2)]);
  });

  test('a device that sends PASID 0 meanwhile leaves nothing of the ASID in the TLB (3.9.1.2)', () => {
    const entries = (quirks: DriverSettings['quirks'] = []): string[] => {
      const bench = plain(8, { quirks });
      const domain = bench.s1();
      iommuMap(domain, 0x1000n, 0x6000_0000n, 0x1000n, RW);
      bench.attachDev(domain);
      bench.setPasid(bench.s1(), 5);
      const endpoint = bench.machine.endpoint(DEV);
      const stop = bench.kernel.onPoint((point) => {
        if (point === 'poll:cmdq:sync') endpoint.write(0x1000n, Uint8Array.of(9), { SubstreamID: 0 });
      });
      bench.attachDev(bench.driver.blockedDomain);
      stop();
      iommuUnmap(domain, 0x1000n, 0x1000n);
      domain.ops.free(domain);
      // The ASID is given out again; the new domain maps nothing.
      const next = bench.s1();
      bench.attachDev(next);
      return [`ASID ${asid(next)}`, endpoint.write(0x1000n, Uint8Array.of(9)).status];
    };
    expect(entries()).toEqual(['ASID 2', 'abort']);
    expect(entries(['cd0-after-tlbi'])).toEqual(['ASID 2', 'ok']);
  });

  test('a new leaf of a two-level table is announced: CFGI_CD leaf=0 (5.3.1)', () => {
    const bench = plain(12);
    bench.attachDev(bench.s1());
    bench.did();
    bench.setPasid(bench.s1(), 1024);
    expect(bench.did()).toEqual(['CFGI_CD 1024 leaf=0', '!', ...cd(2, 1024)]);
  });

  test('refused: stage 2 on a PASID EINVAL; a PASID with the RID on stage 2 EINVAL; stage 2 on the RID with PASIDs EBUSY', () => {
    const bench = plain();
    expect(() => bench.setPasid(bench.s2(), 5)).toThrow(/^EINVAL/);
    bench.attachDev(bench.s2());
    expect(() => bench.setPasid(bench.s1(), 5)).toThrow(/^EINVAL/);
    bench.attachDev(bench.driver.blockedDomain);
    bench.setPasid(bench.s1(), 5);
    expect(() => bench.attachDev(bench.s2())).toThrow(/^EBUSY/);
    expect(() => bench.setPasid(bench.s1(), 256)).toThrow(/^EINVAL/);
  });

  test('DMA with the PASID goes through its own table, DMA without follows the RID', () => {
    const bench = plain();
    const domain = bench.s1();
    iommuMap(domain, 0x1000n, 0x6000_0000n, 0x1000n, RW);
    bench.setPasid(domain, 5);
    const endpoint = bench.machine.endpoint(DEV);
    expect(endpoint.write(0x1000n, Uint8Array.of(9), { SubstreamID: 5 }).status).toBe('ok');
    expect(endpoint.write(0x1000n, Uint8Array.of(9)).status).toBe('abort');
    expect(endpoint.write(0x1000n, Uint8Array.of(9), { SubstreamID: 6 }).status).toBe('abort');
    bench.removePasid(domain, 5);
    expect(endpoint.write(0x1000n, Uint8Array.of(9), { SubstreamID: 5 }).status).toBe('abort');
  });

  test('PASIDs are enabled in configuration space at probe, before ATS, and off after release', () => {
    const bench = new Bench();
    const at = 0x100 + 2 * 0x20 + 4;
    const word = (): bigint => PCI_PASID.get(Uint32Array.of(bench.machine.bus.pciRead32(BDF, at)), 'Enable');
    expect(word()).toBe(1n);
    bench.core.releaseDevice(bench.dev);
    expect(word()).toBe(0n);
  });
});

describe('ATS (linux-driver 6, 13; IHI 0070 3.9.2)', () => {
  test('off to on: STE with EATS, then ATC_INV all, then the endpoint', () => {
    const bench = new Bench();
    bench.attachDev(bench.s1());
    expect(bench.did()).toEqual([...cd(2), ...ste(2), ALL, '!']);
    expect([bench.eats, bench.atsOn]).toEqual([1, true]);
  });

  test('on to on: ATC_INV all, then the old tag', () => {
    const bench = new Bench();
    const old = bench.s1();
    bench.attachDev(old);
    bench.did();
    bench.attachDev(bench.s1());
    expect(bench.did()).toEqual([...cd(3), ...ste(0), ALL, '!', 'NH_ASID 2', '!']);
  });

  test('on to off: the endpoint, ATC_INV all, then the STE (3.9.2); with the quirk the STE comes before', () => {
    const ours = new Bench();
    ours.attachDev(ours.s1());
    ours.did();
    ours.attachDev(ours.driver.blockedDomain);
    expect(ours.did()).toEqual([ALL, '!', ...ste(2), 'NH_ASID 2', '!', ...cd(2)]);
    expect([ours.eats, ours.atsOn]).toEqual([0, false]);
    const linux = new Bench({ quirks: 'linux-7.2' });
    linux.attachDev(linux.s1());
    linux.did();
    linux.attachDev(linux.driver.blockedDomain);
    expect(linux.did()).toEqual([...ste(2), ALL, '!', 'NH_ASID 2', '!', ...cd(2)]);
  });

  test('unmap of a stage 1 range: TLBI, CMD_SYNC, ATC_INV of the span', () => {
    const bench = new Bench();
    const domain = bench.s1();
    bench.attachDev(domain);
    iommuMap(domain, 0x3000n, 0x6000_0000n, 0x2000n, RW);
    bench.did();
    iommuUnmap(domain, 0x3000n, 0x2000n);
    const got = bench.did();
    // Pages 3 and 4 differ in 3 bits: 8 pages from 0.
    expect(got.slice(1)).toEqual(['!', 'ATC - 0x3', '!']);
  });

  test('a nesting parent under nested domains: S2_IPA, NH_ALL, then ATC_INV all, each with its CMD_SYNC', () => {
    const bench = new Bench();
    const s2 = bench.s2();
    const viommu = bench.iommufd.viommu(bench, bench.dev, s2);
    bench.iommufd.vdevice(viommu, bench.dev, 1n);
    bench.attachDev(bench.iommufd.nested(viommu, hwptData(fromQwords([0x8000100bn, 0x100000d6n]))));
    expect([bench.eats, bench.atsOn]).toEqual([1, true]);
    iommuMap(s2, 0x3000n, 0x6000_0000n, 0x1000n, RW);
    bench.commands();
    iommuUnmap(s2, 0x3000n, 0x1000n);
    expect(bench.did().slice(1)).toEqual(['!', '0000000100000010,0000000000000000', '!', ALL, '!']);
  });

  test('a nested domain whose vSTE has EATS=0 turns ATS off; an abort vSTE too, but not with the quirk', () => {
    for (const [vste, quirks, on] of [
      [[0x8000100bn, 0xd6n], [], false],
      [[0x9n, 0n], [], true],
      [[0x1n, 0n], [], false],
      [[0x1n, 0n], ['abort-vste-keeps-ats'], true],
    ] as const) {
      const bench = new Bench({ quirks });
      const viommu = bench.iommufd.viommu(bench, bench.dev, bench.s2());
      bench.iommufd.vdevice(viommu, bench.dev, 1n);
      bench.attachDev(bench.iommufd.nested(viommu, hwptData(fromQwords([...vste]))));
      expect(bench.atsOn, `${vste}`).toBe(on);
    }
  });

  test('a device that does not answer CMD_ATC_INV is cut off, and works without ATS after a new attach (3.9.1.4)', () => {
    const bench = new Bench();
    const domain = bench.s1();
    bench.attachDev(domain);
    iommuMap(domain, 0x3000n, 0x6000_0000n, 0x1000n, RW);
    const endpoint = bench.machine.endpoint(DEV);
    expect(endpoint.write(0x3000n, Uint8Array.of(1), { ats: true }).status).toBe('ok');
    silence(bench);
    iommuUnmap(domain, 0x3000n, 0x1000n);
    expect(bench.kernel.messages.map(({ text }) => text).join('\n')).toMatch(/ATC invalidate timeout(.|\n)*cut off/);
    expect(bench.ste(BDF)[0]).toBe(1n);
    expect(bench.atsOn).toBe(false);
    expect(endpoint.write(0x3000n, Uint8Array.of(1), { ats: true }).status).toBe('abort');
    const next = bench.s1();
    iommuMap(next, 0x3000n, 0x6000_0000n, 0x1000n, RW);
    bench.attachDev(next);
    expect([bench.eats, bench.atsOn]).toEqual([0, false]);
    expect(endpoint.write(0x3000n, Uint8Array.of(1)).status).toBe('ok');
  });

  const silence = (bench: Bench): void => {
    const { ats } = bench.machine.endpoint(DEV);
    if (ats === null) throw new Error('no ATS');
    ats.hang = true;
  };
});

describe('PRI (linux-driver 12)', () => {
  test('requests are logged; the last of a group is refused: PRI_RESP with ResponseFailure, no CMD_SYNC', () => {
    const bench = new Bench();
    bench.attachDev(bench.s1());
    bench.commands();
    const { ats } = bench.machine.endpoint(DEV);
    const request = { StreamID: BDF, SubstreamID: 5, PRGIndex: 7, address: 0x1000n, read: true, write: false } as const;
    ats?.send({ ...request, execute: false, privileged: false, last: false });
    bench.kernel.runInterrupts();
    expect(bench.commands()).toEqual([]);
    ats?.send({ ...request, execute: false, privileged: false, last: true });
    bench.kernel.runInterrupts();
    // SSV, SubstreamID 5, StreamID 8; PRGIndex 7, Resp 0.
    expect(bench.commands()).toEqual(['0000000800005841,0000000000000007']);
    expect(ats?.responses).toEqual([expect.objectContaining({ PRGIndex: 7, code: 0xf })]);
    expect(bench.kernel.messages.filter(({ text }) => text.includes('unexpected PRI request'))).toHaveLength(2);
  });

  test('a Stop Marker gets no answer (8.1)', () => {
    const bench = new Bench();
    bench.commands();
    const marker = { StreamID: BDF, SubstreamID: 5, PRGIndex: 0, address: 0n, read: false, write: false } as const;
    bench.machine.endpoint(DEV).ats?.send({ ...marker, execute: false, privileged: false, last: true });
    bench.kernel.runInterrupts();
    expect(bench.commands()).toEqual([]);
  });
});

describe('SVA, driver part (linux-driver 11)', () => {
  const mm = (): MmStruct => ({ name: 'mm', pgd: 0x6100_0000n, notifiers: new Set() });

  test('a CD with the process tables; invalidation by its notifier; after the end EPD0, still valid', () => {
    const bench = new Bench();
    const space = mm();
    const domain = bench.driver.domainAllocSva(bench.dev, space);
    bench.setPasid(domain, 5);
    const words = () => {
      const at = bench.master.cdTable.find(5) ?? 0n;
      return fromQwords(Array.from({ length: 8 }, (_, i) => bench.machine.bus.load64(at + BigInt(8 * i))));
    };
    expect(CD.address(words(), 'TTB0')).toBe(space.pgd);
    expect(CD.num(words(), 'EPD0')).toBe(0);
    bench.did();
    for (const notifier of space.notifiers) notifier.invalidateRange(0x1000n, 0x2000n);
    // Page granule, no leaf hint: one page becomes two so that the range is legal (4.4.1.1).
    expect(bench.did()).toEqual([
      '0002000000100012,0000000000001400'.replace('00100012', '00100012'),
      '!',
      'ATC 5 0x1000',
      '!',
    ]);
    for (const notifier of space.notifiers) notifier.release();
    expect(CD.num(words(), 'V')).toBe(1);
    expect(CD.num(words(), 'EPD0')).toBe(1);
    expect(CD.get(words(), 'TTB0')).toBe(0n);
    expect(() => bench.setPasid(domain, 6)).toThrow(/^EINVAL/);
    bench.removePasid(domain, 5);
    domain.ops.free(domain);
    expect(space.notifiers.size).toBe(0);
  });
});
