/** Arbitraries of labs and of whole cases. */
import fc from 'fast-check';
import type { VmidPolicyName } from '../../driver/arm-smmu-v3/index.ts';
import type { ScheduleConfig } from '../../hw/schedule.ts';
import type { LabCase } from '../case.ts';
import { type LabConfig, type LabPreset, POLICIES } from '../lab.ts';
import type { Property } from '../property.ts';
import { pools } from './operations.ts';
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
}

/** Most operations of a case, unless told. */
export const DEFAULT_MAX_OPS = 40;

/** Presets that are drawn: smallVmid is linuxNesting with 8-bit VMIDs, which are drawn by themselves. */
const DRAWN_PRESETS: readonly LabPreset[] = ['linuxNesting', 'qemuVirt', 'grace'];

const SMMUS = 2;
const DEVICES = 2;
const VMS = 2;

const seeded: fc.Arbitrary<ScheduleConfig> = fc.record({
  mode: fc.constant('seeded' as const),
  seed: fc.noShrink(fc.nat({ max: 0x7fffffff })),
});
const eager = fc.constant<ScheduleConfig>({ mode: 'eager' });

/** Schedules; a seeded one shrinks to eager. */
export const schedule = (mode?: 'eager' | 'seeded'): fc.Arbitrary<ScheduleConfig> =>
  mode === undefined ? fc.oneof(eager, seeded) : mode === 'eager' ? eager : seeded;

/** Labs of two SMMUs, two devices behind each, and two VMs. */
export function labConfig(options: CaseOptions = {}): fc.Arbitrary<LabConfig> {
  const either = <T>(fixed: T | undefined, values: readonly T[]): fc.Arbitrary<T> =>
    fixed === undefined ? fc.constantFrom(...values) : fc.constant(fixed);
  return fc.record({
    preset: either(options.preset, DRAWN_PRESETS),
    smmus: fc.constant(SMMUS),
    devices: fc.constant(DEVICES),
    vms: fc.constant(VMS),
    streamTable: fc.constantFrom('linear' as const, 'linear' as const, 'two-level' as const),
    defaultDomain: fc.constantFrom('identity' as const, 'identity' as const, 'dma' as const),
    vmidBits: either(options.vmidBits, [16, 8]),
    ...(options.policy === 'foreign' ? {} : { policy: either(options.policy, POLICIES) }),
    schedule: schedule(options.schedule),
    ...Object.fromEntries(Object.entries(options.lab ?? {}).map(([key, value]) => [key, fc.constant(value)])),
  }) as fc.Arbitrary<LabConfig>;
}

/** Cases of a property. */
export function labCase(property: Property, options: CaseOptions = {}): fc.Arbitrary<LabCase> {
  return fc.record({
    config: labConfig(options),
    steps: steps(property.weights, pools(SMMUS, DEVICES, VMS), options.maxOps ?? DEFAULT_MAX_OPS),
  });
}
