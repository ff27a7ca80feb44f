/** What can have happened in a case, as far as rules ask: commands by opcode, and these. */

const NAMES = [
  'page free',
  'ASID alloc',
  'ASID free',
  'VMID alloc',
  'VMID free',
  'VMID shared',
  'stream given',
  'stream back',
  'operation done',
  'operation failed',
  'unmap done',
  'detach done',
  'CR2 written',
  'Stream table set',
  'GBPA set',
  'SMMUEN set',
  'SMMUEN cleared',
  'CFGI_ALL',
  'CFGI without Leaf',
  'command error',
  'STE made valid',
  'STE replaced',
  'mode abort',
  'mode bypass',
  'mode S1',
  'mode S2',
  'mode nested',
  'CD table shared',
  'EATS',
  'S2S',
  'CONT',
  'ATS on',
  'ATS off',
  'ATC_INV timeout',
  'translation request',
  'page request',
  'stall',
  'weak stores',
  "VM's VINTF on",
  'VINTF off',
  'SID pair written',
  'CMDQ_ALLOC written',
  'VCMDQ mapped',
  'VCMDQ unmapped',
  'VCMDQ enabled',
  'VCMDQ disabled',
  'error result',
] as const;

/** Names of features. */
export type FeatureName = (typeof NAMES)[number];

/** Numbers below are opcodes of commands. */
export const FIRST_FEATURE = 256;

/** Number of each feature. */
export const FEATURE = Object.fromEntries(NAMES.map((name, i) => [name, FIRST_FEATURE + i])) as Readonly<
  Record<FeatureName, number>
>;

/** What has happened in a case: 1 at a feature's number. */
export type Features = Uint8Array;

/** Nothing yet. */
export const noFeatures = (): Features => new Uint8Array(FIRST_FEATURE + NAMES.length);
