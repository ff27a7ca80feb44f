/** What happens to SMMUs and kernels as wholes: power, resets, unplug, another kernel, other tenants of the host. */
import { L1STD, STE } from '../../../spec/index.ts';
import { DeviceObject } from '../../iommufd/device.ts';
import { removeIommu } from '../../iommufd/index.ts';
import { CaseError, type Lab, type LabDevice } from '../lab.ts';
import type { OperationResult } from '../operation.ts';
import type { Performers, Texts } from './family.ts';

/** What of an adopted table is damaged: of the device's STE or of what leads to it. */
export const DAMAGES = ['span', 'level-2', 'vmid', 'cd-table'] as const;

/** See the module comment. */
export type HandoverOperation =
  /** The driver suspends an SMMU; then it may lose its registers, and its caches with them or not. Default power 'on'. */
  | { readonly op: 'smmuSuspend'; readonly smmu: string; readonly power?: 'on' | 'off' | 'warm' }
  /** The driver brings an SMMU back; one that was not suspended is reset in operation. */
  | { readonly op: 'smmuResume'; readonly smmu: string }
  /** An SMMU loses its registers without warning, and its caches unless `warm`; the driver finds out and recovers it. */
  | { readonly op: 'smmuReset'; readonly smmu: string; readonly warm?: boolean }
  /** The same of the CMDQV beside it alone. */
  | { readonly op: 'cmdqvReset'; readonly smmu: string }
  /** The devices behind an SMMU are unplugged, then the SMMU itself, whatever vIOMMUs are left on it. */
  | { readonly op: 'smmuUnplug'; readonly smmu: string }
  /**
   * Another kernel takes over; all VMs are gone. `orderly`: the one before has switched the SMMUs off. Else the new one
   * adopts the Stream tables that hardware uses. `damage`: something has written into the table that leads to `dev`.
   */
  | {
      readonly op: 'kexec';
      readonly how: 'orderly' | 'kexec' | 'kdump';
      readonly damage?: { readonly dev: string; readonly what: (typeof DAMAGES)[number] };
    }
  /** Another tenant of the host takes VMIDs of an SMMU, or gives them back, until `left` are free. */
  | { readonly op: 'tenants'; readonly smmu: string; readonly left: number };

/** What {@link OperationResult} says of an SMMU that was removed although vIOMMUs used it. */
export const STILL_USED = 'still used';

const FOREIGN: OperationResult = {
  status: 'error',
  errno: 'EOPNOTSUPP',
  why: 'the driver is not the shipped one, which alone knows how',
};

/** An SMMU by name. @throws CaseError for an unknown one */
function known(lab: Lab, smmu: string): string {
  const names = lab.machine.smmus.map(({ name }) => name);
  if (!names.includes(smmu)) throw new CaseError(`no SMMU ${smmu}; there are ${names.join(', ')}`);
  return smmu;
}

/** An SMMU that the driver serves; undefined: the driver is another, or the SMMU was unplugged. */
function served(lab: Lab, smmu: string): boolean {
  known(lab, smmu);
  return lab.driver?.smmus.some(({ name }) => name === smmu) ?? false;
}

const GONE: OperationResult = { status: 'skipped', why: 'the SMMU was unplugged' };

/** Runs `act` on an SMMU that the shipped driver serves. */
function onSmmu(lab: Lab, smmu: string, act: () => OperationResult | undefined): OperationResult | undefined {
  if (!served(lab, smmu)) return lab.driver === null ? FOREIGN : GONE;
  return act();
}

function suspend(lab: Lab, smmu: string, power: 'on' | 'off' | 'warm'): undefined {
  lab.driver?.suspend(smmu);
  if (power !== 'on') lab.machine.resetSmmu(smmu, power === 'off' ? 'lost' : 'kept');
}

/** A device behind an SMMU that cannot be unbound, or was not when it was closed: a vIOMMU counts on it, or did. */
function held(lab: Lab, smmu: string): LabDevice | undefined {
  if (lab.config.iommuHold !== 'users') return undefined;
  return lab.devices.find(
    ({ ctx, dev, vfio, smmu: its }) =>
      its === smmu &&
      ctx.objects
        .list()
        .some(
          (one) =>
            one instanceof DeviceObject && one.dev === dev && (one.heldBy.size > 0 || !vfio.bound || one !== vfio.idev),
        ),
  );
}

function unplug(lab: Lab, smmu: string): OperationResult | undefined {
  const behind = lab.devices.filter((dev) => dev.smmu === smmu);
  const holder = held(lab, smmu);
  // Nothing is unplugged.
  if (holder !== undefined)
    return { status: 'error', errno: 'EBUSY', why: `${holder.name} is held by a vIOMMU, and with it ${smmu}` };
  for (const { vfio } of behind) vfio.close();
  lab.processes.leave(behind.map(({ dev }) => dev));
  lab.forgetDead();
  const iommu = lab.core.iommus.find(({ name }) => name === smmu);
  if (iommu === undefined) return GONE;
  const quiet = removeIommu(lab.kernel, iommu);
  lab.core.unregisterIommu(iommu);
  lab.driver?.remove(smmu);
  lab.machine.resetSmmu(smmu);
  return quiet ? undefined : { status: 'ok', saw: STILL_USED };
}

/** Writes a damaged record over a good one, as stray DMA does. */
function damage(lab: Lab, dev: string, what: (typeof DAMAGES)[number]): void {
  const { smmu: name, sid } = lab.device(dev);
  const { memory } = lab.machine;
  const { regs } = lab.machine.smmu(name);
  // The table of an SMMU that is off is not adopted.
  if (!regs.SMMUEN) return;
  const base = (BigInt(regs.strtabHi >>> 0) << 32n) | BigInt(regs.strtabLo >>> 0);
  const l1 = base + BigInt((sid >> regs.SPLIT) * L1STD.bytes);
  const word = memory.read64(l1);
  const { twoLevel } = regs;
  if (twoLevel && (what === 'span' || what === 'level-2')) {
    const entry = Uint32Array.of(Number(word & 0xffff_ffffn), Number(word >> 32n));
    if (what === 'span') L1STD.set(entry, 'Span', 3);
    else L1STD.set(entry, 'L2Ptr', 1n);
    memory.write64(l1, (BigInt(entry[1] ?? 0) << 32n) | BigInt(entry[0] ?? 0));
    return;
  }
  const at = twoLevel
    ? L1STD.address(Uint32Array.of(Number(word & 0xffff_ffffn), Number(word >> 32n)), 'L2Ptr') +
      BigInt((sid & ((1 << regs.SPLIT) - 1)) * STE.bytes)
    : base + BigInt(sid * STE.bytes);
  const bad =
    what === 'cd-table'
      ? STE.encode({ V: 1, Config: 'S1_TRANS', S1ContextPtr: 1n })
      : STE.encode({ V: 1, Config: 'S2_TRANS', S2VMID: 0 });
  for (let i = 0; i < bad.length; i += 2)
    memory.write64(at + BigInt(4 * i), (BigInt(bad[i + 1] ?? 0) << 32n) | BigInt(bad[i] ?? 0));
}

/** How each is carried out. */
export const performHandover: Performers<HandoverOperation> = {
  smmuSuspend: (lab, { smmu, power = 'on' }) => onSmmu(lab, smmu, () => suspend(lab, smmu, power)),
  smmuResume: (lab, { smmu }) =>
    onSmmu(lab, smmu, () => {
      lab.driver?.resume(smmu);
      return undefined;
    }),
  smmuReset: (lab, { smmu, warm }) =>
    onSmmu(lab, smmu, () => {
      lab.machine.resetSmmu(smmu, warm === true ? 'kept' : 'lost');
      lab.driver?.resume(smmu);
      return undefined;
    }),
  cmdqvReset: (lab, { smmu }) =>
    onSmmu(lab, smmu, () => {
      const cmdqv = lab.machine.cmdqvs.get(smmu);
      if (cmdqv === undefined) return { status: 'skipped', why: `there is no CMDQV beside ${smmu}` };
      cmdqv.powerLoss();
      lab.driver?.resetCompanion(smmu);
      return undefined;
    }),
  smmuUnplug: (lab, { smmu }) => onSmmu(lab, smmu, () => unplug(lab, smmu)),
  kexec: (lab, { how, damage: harm }) => {
    if (lab.driver === null) return FOREIGN;
    if (harm !== undefined) damage(lab, harm.dev, harm.what);
    lab.kexec(how);
    const adopted = lab.driver.smmus.filter(({ inherited }) => inherited.table !== null).map(({ name }) => name);
    return { status: 'ok', saw: adopted.length === 0 ? 'nothing adopted' : `adopted ${adopted.join(', ')}` };
  },
  tenants: (lab, { smmu, left }) =>
    onSmmu(lab, smmu, () => {
      lab.tenants(smmu, left);
      return undefined;
    }),
};

/** How each is told. */
export const handoverTexts: Texts<HandoverOperation> = {
  smmuSuspend: (o) => [o.smmu, { on: undefined, off: 'power off', warm: 'registers lost' }[o.power ?? 'on']],
  smmuResume: (o) => [o.smmu],
  smmuReset: (o) => [o.smmu, o.warm === true ? 'caches kept' : undefined],
  cmdqvReset: (o) => [o.smmu],
  smmuUnplug: (o) => [o.smmu],
  kexec: (o) => [o.how, o.damage === undefined ? undefined : `damage at ${o.damage.dev}: ${o.damage.what}`],
  tenants: (o) => [o.smmu, `${o.left} left`],
};
