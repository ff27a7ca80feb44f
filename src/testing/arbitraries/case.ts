/** Arbitraries of labs and of whole cases. */
import fc from 'fast-check';
import type { VmidPolicyName } from '../../driver/arm-smmu-v3/index.ts';
import type { ScheduleConfig } from '../../hw/schedule.ts';
import type { HoldPolicyName } from '../../iommufd/index.ts';
import type { LabCase } from '../case.ts';
import { type Flavour, type LabChoices, meet, only } from '../flavour.ts';
import { FLAVOURS } from '../flavours/index.ts';
import { CaseError, type LabConfig, type LabPreset, POLICIES } from '../lab.ts';
import type { Property } from '../property.ts';
import { pools } from './pools.ts';
import { steps } from './steps.ts';

/** What is fixed of a case instead of drawn. */
export interface CaseOptions {
  /** 'foreign': the driver is not the shipped one, and has no policy. */
  readonly policy?: VmidPolicyName | 'foreign';
  readonly preset?: LabPreset;
  readonly vmidBits?: 8 | 16;
  readonly schedule?: 'eager' | 'seeded';
  /** Most operations of a case. Default {@link DEFAULT_MAX_OPS}. */
  readonly maxOps?: number;
  /** Anything else of the lab. */
  readonly lab?: Partial<LabConfig>;
  /** What is drawn from these values only. */
  readonly among?: LabChoices;
}

/** Most operations of a case, unless told. */
export const DEFAULT_MAX_OPS = 250;

/** Presets that are drawn as often as each other. smallVmid is linuxNesting with 8-bit VMIDs, drawn by themselves. */
const USUAL_PRESETS: readonly LabPreset[] = ['linuxNesting', 'qemuVirt', 'grace'];
/** What mmu700 has besides, a flavour of its own draws. */
const DRAWN_PRESETS: readonly LabPreset[] = [...USUAL_PRESETS, ...USUAL_PRESETS, ...USUAL_PRESETS, 'mmu700'];

/**
 * How a vIOMMU holds its IOMMU where a flavour does not say: as Linux does, and now and then so that its device cannot be
 * unbound before it. Drawn last: what else is drawn does not depend on it.
 */
const DRAWN_HOLDS: readonly HoldPolicyName[] = [...Array.from({ length: 9 }, () => 'raw' as const), 'users'];

const SMMUS = 2;
const DEVICES = 2;
const VMS = 2;

/** What labs are drawn from where nobody says otherwise. */
export const DRAWN: LabChoices = {
  preset: DRAWN_PRESETS,
  smmus: [SMMUS],
  devices: [DEVICES],
  vms: [VMS],
  streamTable: ['linear', 'linear', 'two-level'],
  defaultDomain: ['identity', 'identity', 'dma'],
  vmidBits: [16, 8],
  policy: POLICIES,
  entryNum: ['uapi'],
};

const seeded: fc.Arbitrary<ScheduleConfig> = fc.record({
  mode: fc.constant('seeded' as const),
  seed: fc.noShrink(fc.nat({ max: 0x7fffffff })),
});
const eager = fc.constant<ScheduleConfig>({ mode: 'eager' });

/** Schedules; a seeded one shrinks to eager. */
export const schedule = (mode?: 'eager' | 'seeded'): fc.Arbitrary<ScheduleConfig> =>
  mode === undefined ? fc.oneof(eager, seeded) : mode === 'eager' ? eager : seeded;

/** What options leave to be drawn; null: they contradict themselves. */
export function allowed({ policy, preset, vmidBits, lab = {}, among = {} }: CaseOptions): LabChoices | null {
  const { schedule: _, ...rest } = lab;
  const fixed = only({
    ...(preset === 'smallVmid' ? { vmidBits: 8 } : {}),
    ...(policy === undefined || policy === 'foreign' ? {} : { policy }),
    ...(preset === undefined ? {} : { preset }),
    ...(vmidBits === undefined ? {} : { vmidBits }),
  });
  const both = meet(only(rest), fixed);
  return both === null ? null : meet(among, both);
}

/** Labs, two SMMUs, two devices behind each, and two VMs unless told. @throws CaseError for options that contradict */
export function labConfig(options: CaseOptions = {}): fc.Arbitrary<LabConfig> {
  const left = allowed(options);
  if (left === null) throw new CaseError('no lab has all that is asked for');
  const drawn: [string, readonly unknown[]][] = Object.entries({ ...DRAWN, ...left });
  const fixed = options.lab?.schedule;
  return fc.record({
    ...Object.fromEntries(
      drawn
        .filter(([key]) => key !== 'policy' || options.policy !== 'foreign')
        .map(([key, values]) => [key, fc.constantFrom(...values)]),
    ),
    schedule: fixed === undefined ? schedule(options.schedule) : fc.constant(fixed),
  }) as fc.Arbitrary<LabConfig>;
}

/** Cases of a flavour; null: what is fixed contradicts it. */
export function flavourCase(flavour: Flavour, options: CaseOptions = {}): fc.Arbitrary<LabCase> | null {
  const among = meet(flavour.lab ?? {}, options.among ?? {});
  const left = among === null ? null : allowed({ ...options, among });
  if (left === null) return null;
  const { smmus = [SMMUS], devices = [DEVICES], vms = [VMS] } = left;
  const from = pools(smmus[0] ?? SMMUS, devices[0] ?? DEVICES, vms[0] ?? VMS);
  return fc
    .record({
      config: labConfig({ ...options, among: left }),
      steps: steps(flavour, from, options.maxOps ?? DEFAULT_MAX_OPS),
      hold: fc.constantFrom(...DRAWN_HOLDS),
    })
    .map(({ config, steps, hold }) => ({
      config: config.iommuHold === undefined && hold !== 'raw' ? { ...config, iommuHold: hold } : config,
      steps,
    }));
}

/** The flavours that a property is asked on alone: its own, or all. */
export const flavoursOf = ({ name, title, weights }: Property): readonly Flavour[] =>
  weights === undefined ? FLAVOURS : [{ name, title, weights }];

/** Cases of a property. @throws CaseError for options that contradict everything that could be drawn */
export function labCase(property: Property, options: CaseOptions = {}): fc.Arbitrary<LabCase> {
  if (property.cases !== undefined) return property.cases(options);
  return fc.oneof(
    ...fittingFlavours(flavoursOf(property), options).map(({ share, arbitrary }) => ({ weight: share, arbitrary })),
  );
}

/** A flavour whose cases can be drawn. */
export interface FittingFlavour {
  readonly flavour: Flavour;
  readonly share: number;
  readonly arbitrary: fc.Arbitrary<LabCase>;
}

/** The flavours that options do not contradict. @throws CaseError if none is left */
export function fittingFlavours(flavours: readonly Flavour[], options: CaseOptions = {}): readonly FittingFlavour[] {
  const left = flavours.flatMap((flavour) => {
    const arbitrary = flavourCase(flavour, options);
    return arbitrary === null ? [] : [{ flavour, share: flavour.share ?? 1, arbitrary }];
  });
  if (left.length === 0) throw new CaseError('what is asked for excludes every flavour of cases');
  return left;
}
