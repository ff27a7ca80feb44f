/** Whether an SMMU can be built as configured: by the architecture's rules, and by what this model implements. */
import { type Caps, capsOf, featureMet } from '../../spec/caps.ts';
import { LayoutError } from '../../spec/layout.ts';
import { idProblems } from '../../spec/legality/idr.ts';
import { type IdRegisters, idRegistersOf, type SmmuConfig } from './config.ts';

/** A configuration that no SMMU can have, or that this one does not implement. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  /** One sentence a problem. */
  readonly problems: readonly string[];
  constructor(problems: readonly string[]) {
    super(`SMMU configuration: ${problems.join('; ')}`);
    this.problems = problems;
  }
}

/** What this model does not implement, as conditions on ID registers that must not hold. */
const UNIMPLEMENTED: readonly (readonly [condition: string, what: string])[] = [
  ['!IDR0.TTF=2', 'VMSAv8-32 tables are not implemented: IDR0.TTF must be AARCH64'],
  ['IDR0.DORMHINT', 'the dormancy hint is not implemented: IDR0.DORMHINT must be 0'],
  ['IDR0.RME_IMPL', 'RME is not implemented: IDR0.RME_IMPL must be 0'],
  ['IDR1.TABLES_PRESET', 'preset tables are not implemented: IDR1.TABLES_PRESET must be 0'],
  ['IDR1.QUEUES_PRESET', 'preset queues are not implemented: IDR1.QUEUES_PRESET must be 0'],
  ['IDR3.PBHA', 'page-based hardware attributes are not implemented: IDR3.PBHA must be 0'],
  ['IDR3.DPT', 'the Device Permission Table is not implemented: IDR3.DPT must be 0'],
  ['IDR3.PASIDTT', 'PASIDs on Translated transactions are not implemented: IDR3.PASIDTT must be 0'],
  ['IDR3.S1PI', 'permission indirection is not implemented: IDR3.S1PI must be 0'],
  ['IDR3.S2PI', 'permission indirection is not implemented: IDR3.S2PI must be 0'],
  ['IDR3.S2PO', 'permission overlays are not implemented: IDR3.S2PO must be 0'],
  ['IDR3.THE', 'translation hardening is not implemented: IDR3.THE must be 0'],
  ['IDR3.MTEPERM', 'NoTagAccess is not implemented: IDR3.MTEPERM must be 0'],
  ['IDR3.AIE', 'the Attribute Index Extension is not implemented: IDR3.AIE must be 0'],
  ['IDR5.D128', '128-bit descriptors are not implemented: IDR5.D128 must be 0'],
  ['AIDR.ArchMajorRev', 'AIDR.ArchMajorRev must be 0 (SMMUv3)'],
  ['AIDR.ArchMinorRev>=4', 'v3.4 is not implemented: AIDR.ArchMinorRev must be at most 3'],
];

/** The minor version that brought MPAM (6.3.4). */
const MPAM_SINCE = 2;

/** Everything wrong with ID registers, one sentence each; empty for what can be built. */
export function configProblems(ids: IdRegisters): string[] {
  const caps: Caps = capsOf(ids);
  const mpam = [
    ...(ids.MPAMIDR !== 0 && !caps.MPAM ? ['MPAMIDR must be 0 without IDR3.MPAM [6.3.41]'] : []),
    ...(caps.MPAM && caps.minor < MPAM_SINCE ? ['IDR3.MPAM = 1 needs SMMUv3.2: AIDR.ArchMinorRev of 2 or more'] : []),
  ];
  return [
    ...mpam,
    ...idProblems(ids).map(({ rule, message, section }) => `${message} [${rule}, ${section}]`),
    ...UNIMPLEMENTED.filter(([condition]) => featureMet(condition, caps)).map(([, what]) => what),
  ];
}

/** Configurations that were found right, so that a thousand machines of one are checked once. */
const right = new WeakMap<SmmuConfig, IdRegisters>();

/** The ID registers of a configuration that can be built. @throws ConfigError naming everything that is wrong */
export function checkedIds(config: SmmuConfig): IdRegisters {
  const known = right.get(config);
  if (known !== undefined) return known;
  let ids: IdRegisters;
  try {
    ids = idRegistersOf(config);
  } catch (error) {
    if (error instanceof LayoutError) throw new ConfigError([error.message]);
    throw error;
  }
  const problems = configProblems(ids);
  if (problems.length > 0) throw new ConfigError(problems);
  right.set(config, ids);
  return ids;
}
