import { describe, expect, test } from 'vitest';
import { CMD_TLBI_S2_IPA, fromQwords } from '../../../spec/index.ts';
import type { DriverSettings } from '../../../src/driver/arm-smmu-v3/index.ts';
import { iommuMap, iommuUnmap } from '../../../src/driver/iommu/index.ts';
import type { IommuDomain } from '../../../src/driver/iommu/ops.ts';
import { linuxNesting, qemuVirt, type SmmuConfig } from '../../../src/hw/index.ts';
import { Rig } from './rig.ts';
import { deviceAttach, deviceDetach } from './shim.ts';

const RW = { read: true, write: true, cache: true };
const SYNC = '000000000fc02046,0000000000000000';
const DEV = 'dev';

class Bench extends Rig {
  constructor(config: SmmuConfig, settings: DriverSettings = {}) {
    super({
      machine: {
        smmus: [{ config, base: 0x0905_0000n }],
        endpoints: [{ name: DEV, streamIds: [1], canWbs: true }],
      },
      settings: { disableMsiPolling: true, ...settings },
    });
    this.boot();
    deviceDetach(this, this.dev);
  }

  get dev() {
    return this.device(DEV);
  }

  attached(nestParent: boolean): IommuDomain {
    const domain = this.driver.domainAllocPagingFlags(this.dev, nestParent ? { nestParent } : {}, null);
    deviceAttach(this, domain, this.dev);
    this.commands();
    return domain;
  }

  unmap(domain: IommuDomain, iova: bigint, size: bigint): string[] {
    this.commands();
    expect(iommuUnmap(domain, iova, size)).toBe(size);
    return this.commands();
  }
}

/** NH_VA or S2_IPA, words as linux-driver 13 writes them. */
const byAddress = (word0: bigint, tag: bigint, num: bigint, scale: bigint, addr: bigint, low: bigint): string => {
  const first = tag | (scale << 20n) | (num << 12n) | word0;
  return `${first.toString(16).padStart(16, '0')},${(addr | low).toString(16).padStart(16, '0')}`;
};
const nhVa = (asid: bigint, num: bigint, scale: bigint, addr: bigint, low: bigint) =>
  byAddress(0x12n, asid << 48n, num, scale, addr, low);
const s2Ipa = (vmid: bigint, num: bigint, scale: bigint, addr: bigint, low: bigint) =>
  byAddress(0x2an, vmid << 32n, num, scale, addr, low);
const NH_ALL = '0000000100000010,0000000000000000';

/** LEAF, TTL 3, TG 4K. */
const LEAF3 = 0x701n;
/** LEAF, TTL 2, TG 4K. */
const LEAF2 = 0x601n;
/** TG 4K alone. */
const WALK = 0x400n;

describe('unmap with RIL (linux-driver 13, Unmap)', () => {
  test.each([
    [1n, [[0n, 0n, 0n]]],
    [4n, [[0n, 2n, 0n]]],
    [512n, [[0n, 9n, 0n]]],
    [
      532n,
      [
        [4n, 2n, 0n],
        [0n, 9n, 0x14000n],
      ],
    ],
    [
      533n,
      [
        [20n, 0n, 0n],
        [0n, 9n, 0x15000n],
      ],
    ],
  ] as const)('%i pages: NUM, SCALE and address of each command, one CMD_SYNC', (pages, want) => {
    const bench = new Bench(qemuVirt);
    const domain = bench.attached(false);
    // Not aligned to 2 MiB: page leaves only, and no request of block size.
    const iova = 0x4000_1000n;
    iommuMap(domain, iova, 0x6000_0000n, pages * 0x1000n, RW);
    expect(bench.unmap(domain, iova, pages * 0x1000n).at(-1)).toBe(SYNC);
    const again = new Bench(qemuVirt);
    const wide = again.attached(false);
    iommuMap(wide, iova, 0x6000_0000n, pages * 0x1000n, RW);
    expect(again.unmap(wide, iova, pages * 0x1000n)).toEqual([
      ...want.map(([num, scale, at]) => nhVa(2n, num, scale, iova + at, LEAF3)),
      SYNC,
    ]);
  });

  test('a 2 MiB block: TTL=2', () => {
    const bench = new Bench(qemuVirt);
    const domain = bench.attached(false);
    iommuMap(domain, 0x4000_0000n, 0x6000_0000n, 0x20_0000n, RW);
    expect(bench.unmap(domain, 0x4000_0000n, 0x20_0000n)).toEqual([nhVa(2n, 0n, 9n, 0x4000_0000n, LEAF2), SYNC]);
  });

  test('pages of a nest parent: S2_IPA, CMD_SYNC, NH_ALL, CMD_SYNC', () => {
    const bench = new Bench(qemuVirt, { vmidPolicy: 'at-domain-alloc', quirks: 'linux-7.2' });
    const domain = bench.attached(true);
    iommuMap(domain, 0x1000n, 0x6000_0000n, 0x1000n, RW);
    expect(bench.unmap(domain, 0x1000n, 0x1000n)).toEqual([s2Ipa(1n, 0n, 0n, 0x1000n, LEAF3), SYNC, NH_ALL, SYNC]);
  });

  test('4 MiB of pages unmapped as blocks: walk flush of each 2 MiB, then the leaf flush: six CMD_SYNCs', () => {
    const bench = new Bench(qemuVirt, { vmidPolicy: 'at-domain-alloc', quirks: 'linux-7.2' });
    const domain = bench.attached(true);
    for (let i = 0n; i < 1024n; i++)
      iommuMap(domain, 0x4000_0000n + i * 0x1000n, 0x6000_0000n + ((i * 7n) % 1024n) * 0x1000n, 0x1000n, RW);
    expect(bench.unmap(domain, 0x4000_0000n, 0x40_0000n)).toEqual([
      ...[0x4000_0000n, 0x4020_0000n].flatMap((at) => [s2Ipa(1n, 0n, 9n, at, WALK), SYNC, NH_ALL, SYNC]),
      s2Ipa(1n, 0n, 10n, 0x4000_0000n, LEAF2),
      SYNC,
      NH_ALL,
      SYNC,
    ]);
  });

  test('16 KiB pages: TG=2', () => {
    const bench = new Bench(qemuVirt, { pageSize: 16384 });
    const domain = bench.attached(false);
    iommuMap(domain, 0x4000n, 0x6000_0000n, 0x4000n, RW);
    expect(bench.unmap(domain, 0x4000n, 0x4000n)).toEqual([nhVa(2n, 0n, 0n, 0x4000n, 0xb01n), SYNC]);
  });

  test('no device attached: no command; mapping: no command', () => {
    const bench = new Bench(qemuVirt);
    const domain = bench.driver.domainAllocPagingFlags(bench.dev, {}, null);
    bench.commands();
    iommuMap(domain, 0x1000n, 0x6000_0000n, 0x1000n, RW);
    expect(bench.unmap(domain, 0x1000n, 0x1000n)).toEqual([]);
  });

  test('a queued unmap gathers nothing; the flush queue then removes the whole tag', () => {
    const bench = new Bench(qemuVirt);
    const domain = bench.attached(false);
    iommuMap(domain, 0x1000n, 0x6000_0000n, 0x1000n, RW);
    bench.commands();
    const gather = { start: 0n, end: 0n, pgsize: 0n, empty: true, queued: true };
    expect(domain.ops.unmapPages?.(domain, 0x1000n, 0x1000n, 1, gather)).toBe(0x1000n);
    expect([gather.empty, bench.commands()]).toEqual([true, []]);
    domain.ops.flushIotlbAll?.(domain);
    expect(bench.commands()).toEqual(['0002000000000011,0000000000000000', SYNC]);
  });
});

describe('unmap without RIL (linux-driver 5, Map/unmap invalidation)', () => {
  const config: SmmuConfig = { ...qemuVirt, IDR3: { HAD: 1, XNX: 1, BBML: 'LEVEL_2' } };

  test('one command a page with NUM=SCALE=TTL=TG=0; 64 are published without a CMD_SYNC', () => {
    const bench = new Bench(config);
    const domain = bench.attached(false);
    iommuMap(domain, 0x1000n, 0x6000_0000n, 70n * 0x1000n, RW);
    const want = Array.from({ length: 70 }, (_, i) => nhVa(2n, 0n, 0n, 0x1000n + BigInt(i) * 0x1000n, 1n));
    expect(bench.unmap(domain, 0x1000n, 70n * 0x1000n)).toEqual([...want, SYNC]);
  });

  test('2 MiB and more is too big: NH_ASID, S12_VMALL, and no NH_ALL after it', () => {
    const bench = new Bench(config);
    const domain = bench.attached(false);
    iommuMap(domain, 0x1000n, 0x6000_0000n, 0x20_1000n, RW);
    expect(bench.unmap(domain, 0x1000n, 0x20_1000n)).toEqual(['0002000000000011,0000000000000000', SYNC]);
    const nesting = new Bench(config, { vmidPolicy: 'at-domain-alloc' });
    const s2 = nesting.attached(true);
    iommuMap(s2, 0x1000n, 0x6000_0000n, 0x20_1000n, RW);
    expect(nesting.unmap(s2, 0x1000n, 0x20_1000n)).toEqual(['0000000100000028,0000000000000000', SYNC]);
  });
});

test('a VHE kernel tags stage 1 as EL2: STRW, EL2_VA, EL2_ASID, CR2.E2H, EL2_ALL at reset (linux-driver 2, 5, 8)', () => {
  const bench = new Rig({
    machine: { smmus: [{ config: linuxNesting, base: 0x0905_0000n }], endpoints: [{ name: DEV, streamIds: [1] }] },
    settings: { disableMsiPolling: true },
  }).boot();
  const all = bench.commands();
  expect(all.slice(2, 4)).toEqual(['0000000000000020,0000000000000000', SYNC]);
  // RECINVSID and E2H; PTM is RES0 without IDR0.BTM.
  expect(bench.machine.bus.readl(0x0905_002cn)).toBe(3);
  const domain = bench.driver.domainAllocPagingFlags(bench.device(DEV), {}, null);
  deviceAttach(bench, domain, bench.device(DEV));
  expect(((bench.ste(1)[1] ?? 0n) >> 30n) & 3n).toBe(2n);
  iommuMap(domain, 0x1000n, 0x6000_0000n, 0x1000n, RW);
  expect(bench.machine.endpoint(DEV).write(0x1000n, Uint8Array.of(1)).status).toBe('ok');
  bench.commands();
  iommuUnmap(domain, 0x1000n, 0x1000n);
  expect(bench.commands()).toEqual([byAddress(0x22n, 2n << 48n, 0n, 0n, 0x1000n, LEAF3), SYNC]);
  expect(bench.machine.endpoint(DEV).write(0x1000n, Uint8Array.of(1)).status).toBe('abort');
  deviceDetach(bench, bench.device(DEV));
  expect(bench.commands()).toContain('0002000000000021,0000000000000000');
});

test('an erratum that wants a CMD_SYNC every 63 commands gets it (CMDQ_FORCE_SYNC, linux-driver 4.4)', () => {
  const bench = new Bench({ ...qemuVirt, IDR3: { HAD: 1, XNX: 1, BBML: 'LEVEL_2' } });
  Object.assign(bench.smmu.features, { forceSync: true });
  const domain = bench.attached(false);
  iommuMap(domain, 0x1000n, 0x6000_0000n, 70n * 0x1000n, RW);
  const got = bench.unmap(domain, 0x1000n, 70n * 0x1000n);
  expect([got.indexOf(SYNC), got.length]).toEqual([63, 72]);
});

describe('dirty tracking with HTTU (linux-driver 5, IHI 0070 3.13)', () => {
  const config: SmmuConfig = { ...linuxNesting, IDR0: { ...linuxNesting.IDR0, HTTU: 'ACCESS_DIRTY' } };

  test('written pages are reported once; clearing removes the writable TLB entry, so the next write counts again', () => {
    const bench = new Bench(config);
    const { driver, dev } = bench;
    expect(driver.capable(dev, 'dirty-tracking')).toBe(true);
    const domain = driver.domainAllocPagingFlags(dev, { dirtyTracking: true }, null);
    deviceAttach(bench, domain, dev);
    iommuMap(domain, 0x1000n, 0x6000_0000n, 0x4000n, RW);
    const endpoint = bench.machine.endpoint(DEV);
    const read = (noClear: boolean): bigint[] => {
      const found: bigint[] = [];
      const gather = { start: 0n, end: 0n, pgsize: 0n, empty: true };
      domain.dirtyOps?.readAndClearDirty(domain, 0x1000n, 0x4000n, noClear, (at) => found.push(at), gather);
      if (!gather.empty) domain.ops.iotlbSync?.(domain, gather);
      return found;
    };
    // Linux maps writable pages as written: the first clear starts the tracking.
    expect(read(false)).toEqual([0x1000n, 0x2000n, 0x3000n, 0x4000n]);
    expect(read(false)).toEqual([]);
    endpoint.write(0x2000n, Uint8Array.of(1));
    expect(read(true)).toEqual([0x2000n]);
    expect(read(false)).toEqual([0x2000n]);
    expect(read(false)).toEqual([]);
    endpoint.write(0x2000n, Uint8Array.of(1));
    expect(read(false)).toEqual([0x2000n]);
    endpoint.read(0x3000n, 4);
    expect(read(false)).toEqual([]);
  });

  test('only for stage 1, and not with a nesting parent: EOPNOTSUPP', () => {
    const bench = new Bench(config);
    expect(() =>
      bench.driver.domainAllocPagingFlags(bench.dev, { nestParent: true, dirtyTracking: true }, null),
    ).toThrow(/^EOPNOTSUPP/);
    expect(bench.driver.domainAllocPagingFlags(bench.dev, {}, null).dirtyOps).toBeUndefined();
  });
});

test('the address of a command by IPA keeps its place in the layout (4.4.3)', () => {
  const [first = ''] = [s2Ipa(1n, 2n, 3n, 0xabc_d000n, LEAF3)];
  const words = fromQwords(first.split(',').map((word) => BigInt(`0x${word}`)));
  expect(CMD_TLBI_S2_IPA.address(words, 'Address')).toBe(0xabcd000n);
});
