import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { fromQwords } from '../../../spec/index.ts';
import { Rig } from './rig.ts';
import { deviceAttach, deviceDetach, FakeIommufd, hwptData, invalidation } from './shim.ts';

interface Phase {
  readonly phase: string;
  readonly streams: readonly { readonly sid: string; readonly config: number; readonly ste: readonly string[] }[];
  readonly commands: readonly string[];
}

const recorded = JSON.parse(
  readFileSync(new URL('../../data/linux-7.2-iommufd-nested/phases.json', import.meta.url), 'utf8'),
) as { readonly phases: readonly Phase[] };

const phase = (name: string): Phase => {
  const found = recorded.phases.find((each) => each.phase === name);
  if (found === undefined) throw new Error(`no phase ${name}`);
  return found;
};

/** ASIDs are numbered by all devices of the recorded machine; ours has two. */
const withoutAsid = (command: string): string =>
  command.startsWith('000') && command.slice(14, 16) === '11' && command.slice(8, 12) === '0000' && command[7] === '0'
    ? `asid${command.slice(4)}`
    : command;

test('the recorded nested scenario: commands and STE words of every phase (linux-7.2-iommufd-nested)', () => {
  const rig = new Rig({ settings: { vmidPolicy: 'at-domain-alloc', quirks: 'linux-7.2' } }).boot();
  const { driver } = rig;
  const dev1 = rig.device('0000:00:05.0');
  const dev2 = rig.device('0000:01:00.0');
  rig.commands();

  const check = (name: string): void => {
    const want = phase(name);
    expect(rig.commands().map(withoutAsid), `commands of ${name}`).toEqual(want.commands.map(withoutAsid));
    for (const stream of want.streams) {
      const config = stream.config;
      const ours = rig.ste(Number(stream.sid));
      // Host addresses differ: S2TTB in word 3, and S1ContextPtr where the kernel owns it.
      const masked = stream.ste.map((word, i) =>
        i === 3 ? BigInt(word) & 0xfn : i === 0 && config === 5 ? BigInt(word) & 0x3fn : BigInt(word),
      );
      const mine = ours.map((word, i) => (i === 3 ? word & 0xfn : i === 0 && config === 5 ? word & 0x3fn : word));
      expect(mine.map(String), `STE ${stream.sid} of ${name}`).toEqual(masked.map(String));
    }
  };

  // Both devices are claimed: blocked.
  for (const dev of [dev1, dev2]) deviceAttach(rig, driver.blockedDomain, dev);
  check('iommufd-bound');

  const s1 = driver.domainAllocPagingFlags(dev1, {}, null);
  deviceAttach(rig, s1, dev1);
  check('ioas-attached');

  const s2 = driver.domainAllocPagingFlags(dev1, { nestParent: true }, null);
  deviceAttach(rig, s2, dev1);
  s1.ops.free(s1);
  check('s2-attached');

  const iommufd = new FakeIommufd();
  expect(driver.getViommuSize(dev1, 99)).toBe(0);
  expect(driver.getViommuSize(dev1, 2)).toBe(0);
  const viommu = iommufd.viommu(rig, dev1, s2);
  const nested = (ste0: bigint, ste1: bigint) => iommufd.nested(viommu, hwptData(fromQwords([ste0, ste1])));
  const a = nested(0x8000100bn, 0xd6n);
  expect(() => deviceAttach(rig, a, dev1)).toThrow(/^ENOENT/);
  iommufd.vdevice(viommu, dev1, 0x123n);
  const second = iommufd.vdevice(viommu, dev2, 0x1ffffffffn);
  second.destroy();
  deviceAttach(rig, a, dev1);
  check('nested-attached');
  check('nested-faulted');

  const invalidate = (...commands: readonly (readonly [bigint, bigint])[]) => {
    const array = invalidation(commands.map((command) => fromQwords([...command])));
    let errno = 'ok';
    try {
      viommu.ops?.cacheInvalidate?.(viommu, array);
    } catch (error) {
      errno = (error as Error).message.split(':')[0] ?? '';
    }
    return [errno, array.entryNum];
  };
  expect(invalidate([0x0011000700000012n, 0x10001n])).toEqual(['ok', 1]);
  expect(
    invalidate(
      [0x0011000000000011n, 0n],
      [0x10n, 0n],
      [0x30n, 0n],
      [0x13n, 0x10000n],
      [0x0000012300000005n, 1n],
      [0x0000012300000006n, 0n],
    ),
  ).toEqual(['ok', 6]);
  expect(invalidate([0x0000099900000005n, 1n])).toEqual(['EIO', 0]);
  expect(invalidate([0x0011000000000011n, 0n], [0x0000012300000003n, 0n])).toEqual(['EIO', 1]);
  expect(invalidate([0x46n, 0n])).toEqual(['EIO', 0]);
  expect(invalidate()).toEqual(['EINVAL', 0]);
  check('nested-invalidated');

  const b = nested(0x8000200bn, 0xd6n);
  deviceAttach(rig, b, dev1);
  a.ops.free(a);
  check('nested-switched');

  deviceAttach(rig, nested(0xe000000bn, 0xd6n), dev1);
  deviceAttach(rig, nested(0x8000300bn, 0xd6n), dev1);
  check('nested-bad-cd');
  deviceAttach(rig, nested(0x9n, 0n), dev1);
  check('nested-bypass');
  deviceAttach(rig, nested(0x1n, 0n), dev1);
  check('nested-abort');
  deviceDetach(rig, dev1);
  expect(rig.commands().slice(-2)).toEqual(['0000000100000028,0000000000000000', '000000000fc02046,0000000000000000']);
});
