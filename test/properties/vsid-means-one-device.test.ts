import { describe, expect, test } from 'vitest';
import { runCase } from '../../src/testing/case.ts';
import type { LabConfig } from '../../src/testing/lab.ts';
import type { Operation } from '../../src/testing/operation.ts';
import { vsidMeansOneDevice } from '../../src/testing/properties/index.ts';
import { type Bug, infected } from '../../src/testing/zoo/bug.ts';
import { ZOO } from '../../src/testing/zoo/index.ts';

const CONFIG: LabConfig = { policy: 'at-attach', streamTable: 'linear', smmus: 1, devices: 2, vms: 1 };

function broken(operations: readonly Operation[], bug?: Pick<Bug, 'apply'>, config: LabConfig = {}): string | null {
  const one = { config: { ...CONFIG, ...config }, steps: operations.map((operation, id) => ({ id, operation })) };
  const extras = bug === undefined ? {} : { extras: infected({ name: 'bug', story: 'a bug', ...bug }) };
  return runCase(vsidMeansOneDevice, one, extras).finding?.message ?? null;
}

const zoo = (name: string): Bug => {
  const found = ZOO.find((bug) => bug.name === name);
  if (found === undefined) throw new Error(`no bug ${name}`);
  return found;
};

/** Two devices of VM 0 under one vIOMMU, vSIDs 3 and 4; the second's CD is not valid. */
const TWO: readonly Operation[] = [
  { op: 'hwptAlloc', as: 's0', dev: 'd0', ioas: 'a0', nestParent: true },
  { op: 'viommuAlloc', as: 'v0', dev: 'd0', parent: 's0' },
  { op: 'veventqAlloc', as: 'e0', viommu: 'v0', depth: 8 },
  { op: 'vdeviceAlloc', as: 'x0', dev: 'd0', viommu: 'v0', vsid: 3 },
  { op: 'vdeviceAlloc', as: 'x1', dev: 'd1', viommu: 'v0', vsid: 4 },
  { op: 'nestedAlloc', as: 'n0', dev: 'd0', on: 'v0', vste: 'translate' },
  { op: 'nestedAlloc', as: 'n1', dev: 'd1', on: 'v0', vste: 'translate', cd: 2 },
  { op: 'attach', dev: 'd0', to: 'n0' },
  { op: 'attach', dev: 'd1', to: 'n1' },
];
const cfgi = (vsid: number): Operation => ({ op: 'invalidate', on: 'v0', commands: [{ command: 'CFGI_CD', vsid }] });

describe('a command by vSID reaches the device of its vDEVICE [arm_vsmmu_vsid_to_sid]', () => {
  test('that device and no other', () => {
    expect(broken([...TWO, cfgi(3), cfgi(4)])).toBeNull();
    expect(broken([...TWO, cfgi(3)], zoo('guest-vsid-passed'))).toMatch(
      /CFGI_CD of vSID 3 did not reach StreamID 0x1 of d0/,
    );
  });

  test('a CFGI_CD of a substream that the SMMU has not drops nothing, and nothing is missed [4.3.3]', () => {
    const far: Operation = { op: 'invalidate', on: 'v0', commands: [{ command: 'CFGI_CD', vsid: 3, ssid: 1 }] };
    // qemuVirt has SSIDSIZE 0: its only CD is the one of substream 0.
    expect(broken([...TWO, far], undefined, { preset: 'qemuVirt' })).toBeNull();
    expect(broken([...TWO, far, cfgi(3)], zoo('guest-vsid-passed'), { preset: 'qemuVirt' })).toMatch(/did not reach/);
  });

  test('a queue for errors of VCMDQs has no events of streams', () => {
    const quiet: Operation[] = [
      ...TWO.filter(({ op }) => op !== 'veventqAlloc'),
      { op: 'veventqAlloc', as: 'e0', viommu: 'v0', depth: 8, type: 'tegra241-cmdqv' },
      { op: 'dma', dev: 'd1', page: 14 },
      { op: 'veventRead', on: 'e0' },
    ];
    const on = quiet.map((o) => (o.op === 'viommuAlloc' ? { ...o, type: 'tegra241-cmdqv' as const } : o));
    expect(broken(on, undefined, { preset: 'grace' })).toBeNull();
  });

  test('a vEVENTQ gets the event of an access before it was made, where hardware is slow to write it [7.2]', () => {
    const late: Operation[] = [
      ...TWO.filter(({ op }) => op !== 'veventqAlloc'),
      { op: 'dma', dev: 'd1', page: 14 },
      { op: 'veventqAlloc', as: 'e0', viommu: 'v0', depth: 8 },
      { op: 'veventRead', on: 'e0' },
    ];
    for (let seed = 1; seed <= 20; seed++)
      expect(broken(late, undefined, { schedule: { mode: 'seeded', seed } })).toBeNull();
  });

  test('it is found if it is there', () => {
    expect(broken([...TWO, cfgi(3)], zoo('vsid-not-found'))).toMatch(/EIO .*CFGI_CD, whose vSIDs have vDEVICEs/);
  });

  test('without a vDEVICE it names nothing, also where there was one', () => {
    expect(broken([...TWO, cfgi(5)])).toBeNull();
    const gone: Operation[] = [...TWO, cfgi(3), { op: 'destroy', name: 'x0' }, cfgi(3)];
    expect(broken(gone)).toBeNull();
    expect(broken(gone, zoo('vsid-left-behind'))).toMatch(
      /CFGI_CD of vSID 3, which no vDEVICE of it has, went through/,
    );
  });

  test('it is free again when its vDEVICE is destroyed, its device closed, or its kernel gone', () => {
    const [s0, v0, , x0] = TWO;
    if (s0 === undefined || v0 === undefined || x0 === undefined) throw new Error('TWO is shorter');
    const again = { ...x0, as: 'x9' } as Operation;
    const bind: Operation = { op: 'bind', dev: 'd0' };
    expect(broken([s0, v0, x0, { op: 'destroy', name: 'x0' }, again])).toBeNull();
    expect(broken([s0, v0, x0, { op: 'unbind', dev: 'd0' }, bind, again])).toBeNull();
    for (const how of ['orderly', 'kexec', 'kdump'] as const)
      expect(broken([s0, v0, x0, { op: 'kexec', how }, bind, s0, v0, again])).toBeNull();
  });

  test('it is not, where the unplug of the SMMU was refused', () => {
    const [s0, v0, , x0] = TWO;
    if (s0 === undefined || v0 === undefined || x0 === undefined) throw new Error('TWO is shorter');
    const unasked: Pick<Bug, 'apply'> = {
      apply: ({ iommufd }) => {
        iommufd.vdevices = { ...iommufd.vdevices, reserve: () => {}, publish: () => {} };
      },
    };
    const second: Operation = { op: 'vdeviceAlloc', as: 'x1', dev: 'd1', viommu: 'v0', vsid: 3 };
    const steps: Operation[] = [s0, v0, x0, { op: 'smmuUnplug', smmu: 'smmu0' }, second];
    expect(broken(steps, undefined, { iommuHold: 'users' })).toBeNull();
    expect(broken(steps, unasked, { iommuHold: 'users' })).toMatch(/^vSID 3 of v0 is that of d0 and now of d1 too$/);
  });

  test('a SubstreamID that the SMMU has not has no effect [4.1.7]', () => {
    const beyond: Operation = { op: 'invalidate', on: 'v0', commands: [{ command: 'CFGI_CD', vsid: 3, ssid: 1 }] };
    expect(broken([...TWO, beyond], undefined, { preset: 'qemuVirt' })).toBeNull();
    expect(broken([...TWO, beyond], undefined, { preset: 'linuxNesting' })).toBeNull();
  });

  test('all streams of the device, or there is no such vDEVICE', () => {
    const [s0, v0, , x0] = TWO;
    if (s0 === undefined || v0 === undefined || x0 === undefined) throw new Error('TWO is shorter');
    const config: LabConfig = { streams: 2, devices: 1 };
    expect(broken([s0, v0, x0, cfgi(3)], undefined, config)).toBeNull();
    expect(broken([s0, v0, x0, cfgi(3)], zoo('vdevice-of-two-streams'), config)).toMatch(
      /CFGI_CD of vSID 3 did not reach StreamID 0x21 of d0/,
    );
  });

  test('CMD_ATC_INV reaches its endpoint', () => {
    const atc: Operation = { op: 'invalidate', on: 'v0', commands: [{ command: 'ATC_INV', vsid: 3 }] };
    expect(broken([...TWO, atc], undefined, { ats: true })).toBeNull();
    const passed: Pick<Bug, 'apply'> = {
      apply: ({ driver }) => {
        const { nested } = driver;
        driver.nested = { ...nested, convertCommand: (command) => command.slice() };
      },
    };
    expect(broken([...TWO, atc], passed, { ats: true })).toMatch(/ATC_INV did not reach d0/);
  });
});

describe('events of a VM carry the vSID of the device [IOMMU_VEVENTQ_ALLOC, arm_vmaster_report_event]', () => {
  const fault: readonly Operation[] = [
    { op: 'dma', dev: 'd1', page: 9 },
    { op: 'veventRead', on: 'e0' },
  ];
  /** What the driver tells the core is told with another number, or not at all. */
  const telling = (change: (data: Uint8Array) => Uint8Array | null): Pick<Bug, 'apply'> => ({
    apply: ({ driver }) => {
      const { vmidPolicy: base } = driver;
      driver.vmidPolicy = {
        ...base,
        vsmmuInit: (vsmmu) => {
          base.vsmmuInit(vsmmu);
          const { callbacks } = vsmmu.viommu;
          const { reportEvent } = callbacks;
          Object.assign(callbacks, {
            reportEvent: (viommu: never, type: number, data: Uint8Array) => {
              const changed = change(data.slice());
              if (changed !== null) reportEvent(viommu, type, changed);
            },
          });
        },
      };
    },
  });

  test('as it is', () => {
    expect(broken([...TWO, ...fault])).toBeNull();
  });

  test('the number of another device', () => {
    const other = telling((data) => data.fill(3, 4, 5));
    expect(broken([...TWO, ...fault], other)).toMatch(/has an event C_BAD_CD of vSID 3; no device attached with that/);
  });

  test('none', () => {
    expect(
      broken(
        [...TWO, ...fault],
        telling(() => null),
      ),
    ).toMatch(/vSID 4 was refused .* e0 of v0 has no event of it/);
  });
});

describe('whom events are for [arm_smmu_attach_commit_vmaster]', () => {
  const LOST: readonly Operation[] = [
    { op: 'guestMap', vm: 'vm0', space: 0, page: 8, to: null },
    { op: 'invalidate', on: 'v0', commands: [{ command: 'NH_ALL' }] },
    { op: 'dma', dev: 'd0', page: 8 },
    { op: 'veventRead', on: 'e0' },
  ];

  test('an attach to where the device is does nothing: a vDEVICE that went meanwhile is still named [iommufd_device_do_replace]', () => {
    expect(broken([...TWO, { op: 'destroy', name: 'x0' }, { op: 'attach', dev: 'd0', to: 'n0' }, ...LOST])).toBeNull();
  });

  test('a device that is moved between vIOMMUs has its events with the new one, and they are not with the old one', () => {
    const moved: readonly Operation[] = [
      ...TWO,
      { op: 'destroy', name: 'x0' },
      { op: 'viommuAlloc', as: 'v1', dev: 'd0', parent: 's0' },
      { op: 'veventqAlloc', as: 'e1', viommu: 'v1', depth: 8 },
      { op: 'vdeviceAlloc', as: 'x0', dev: 'd0', viommu: 'v1', vsid: 5 },
      { op: 'nestedAlloc', as: 'n2', dev: 'd0', on: 'v1', vste: 'translate' },
      { op: 'attach', dev: 'd0', to: 'n2' },
      ...LOST,
      { op: 'veventRead', on: 'e1' },
    ];
    expect(broken(moved)).toBeNull();
    expect(broken(moved, zoo('events-of-the-old-vm'))).toMatch(/e0 of v0 has an event F_TRANSLATION of vSID 3/);
  });
});
