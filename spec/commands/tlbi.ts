/** TLB and DPT invalidation (IHI 0070 4.4, 4.6). */
import { command } from './command-layout.ts';

const NUM = { bits: [16, 12], when: 'IDR3.RIL', text: 'range: (NUM+1) * 2^SCALE granules' } as const;
const SCALE = { bits: [25, 20], when: 'IDR3.RIL' } as const;
const VMID = { bits: [47, 32], when: 'IDR0.S2P' } as const;
const ASID = { bits: [63, 48] } as const;
const LEAF = { bits: [64, 64], text: 'last level only' } as const;
const TTL128 = { bits: [71, 71], when: 'IDR3.RIL', text: 'TTL is a level of 128-bit descriptors' } as const;
const TTL = {
  bits: [73, 72],
  when: 'IDR3.RIL',
  values: { ANY: 0, LEVEL_1: 1, LEVEL_2: 2, LEVEL_3: 3 },
  text: 'level of the leaf entries',
} as const;
const TG = {
  bits: [75, 74],
  when: 'IDR3.RIL',
  values: { ANY: 0, '4KB': 1, '16KB': 2, '64KB': 3 },
  text: 'granule of the entries; ANY: one address, no range',
} as const;
const VA = { bits: [127, 76], address: 12 } as const;
const IPA = { bits: [119, 76], address: 12 } as const;

const NO_OPERANDS = { RES0_127_8: { bits: [127, 8], reserved: 'RES0' } } as const;

/** Fields of all commands by address, between opcode and VMID. */
const RANGE_LOW = {
  RES0_11_8: { bits: [11, 8], reserved: 'RES0' },
  NUM,
  RES0_19_17: { bits: [19, 17], reserved: 'RES0' },
  SCALE,
  RES0_31_26: { bits: [31, 26], reserved: 'RES0' },
} as const;

/** Fields of all commands by address, between ASID and address. */
const RANGE_HIGH = {
  Leaf: LEAF,
  RES0_70_65: { bits: [70, 65], reserved: 'RES0' },
  TTL128,
  TTL,
  TG,
} as const;

/** Stage 1 of one VMID (4.4.2.1). */
export const CMD_TLBI_NH_ALL = command(
  'CMD_TLBI_NH_ALL',
  { opcode: 0x10, nonSecure: true, when: 'IDR0.S1P', section: '4.4.2.1', text: 'stage 1 of a VMID' },
  {
    RES0_31_8: { bits: [31, 8], reserved: 'RES0' },
    VMID,
    RES0_127_48: { bits: [127, 48], reserved: 'RES0' },
  },
);

/** Stage 1, non-global, of one VMID and ASID (4.4.2.2). */
export const CMD_TLBI_NH_ASID = command(
  'CMD_TLBI_NH_ASID',
  { opcode: 0x11, nonSecure: true, when: 'IDR0.S1P', section: '4.4.2.2', text: 'non-global stage 1 of an ASID' },
  {
    RES0_31_8: { bits: [31, 8], reserved: 'RES0' },
    VMID,
    ASID,
    RES0_127_64: { bits: [127, 64], reserved: 'RES0' },
  },
);

/** Stage 1 by VMID, ASID and address (4.4.2.4). */
export const CMD_TLBI_NH_VA = command(
  'CMD_TLBI_NH_VA',
  { opcode: 0x12, nonSecure: true, when: 'IDR0.S1P', section: '4.4.2.4', text: 'stage 1 of an ASID, by address' },
  { ...RANGE_LOW, VMID, ASID, ...RANGE_HIGH, Address: VA },
);

/** Stage 1 by VMID and address, any ASID (4.4.2.3). */
export const CMD_TLBI_NH_VAA = command(
  'CMD_TLBI_NH_VAA',
  { opcode: 0x13, nonSecure: true, when: 'IDR0.S1P', section: '4.4.2.3', text: 'stage 1 of any ASID, by address' },
  { ...RANGE_LOW, VMID, RES0_63_48: { bits: [63, 48], reserved: 'RES0' }, ...RANGE_HIGH, Address: VA },
);

/** All of NS-EL2 and NS-EL2-E2H (4.4.2.7). */
export const CMD_TLBI_EL2_ALL = command(
  'CMD_TLBI_EL2_ALL',
  { opcode: 0x20, nonSecure: true, when: ['IDR0.S1P', 'IDR0.Hyp'], section: '4.4.2.7', text: 'all of EL2' },
  NO_OPERANDS,
);

/** Non-global NS-EL2-E2H entries of an ASID (4.4.2.10). */
export const CMD_TLBI_EL2_ASID = command(
  'CMD_TLBI_EL2_ASID',
  {
    opcode: 0x21,
    nonSecure: true,
    when: ['IDR0.S1P', 'IDR0.Hyp'],
    section: '4.4.2.10',
    text: 'non-global EL2-E2H of an ASID',
  },
  {
    RES0_47_8: { bits: [47, 8], reserved: 'RES0' },
    ASID,
    RES0_127_64: { bits: [127, 64], reserved: 'RES0' },
  },
);

/** EL2 entries by ASID (E2H only) and address (4.4.2.8). */
export const CMD_TLBI_EL2_VA = command(
  'CMD_TLBI_EL2_VA',
  {
    opcode: 0x22,
    nonSecure: true,
    when: ['IDR0.S1P', 'IDR0.Hyp'],
    section: '4.4.2.8',
    text: 'EL2, by address; with E2H of an ASID',
  },
  { ...RANGE_LOW, RES0_47_32: { bits: [47, 32], reserved: 'RES0' }, ASID, ...RANGE_HIGH, Address: VA },
);

/** EL2 entries by address, any ASID (4.4.2.9). */
export const CMD_TLBI_EL2_VAA = command(
  'CMD_TLBI_EL2_VAA',
  {
    opcode: 0x23,
    nonSecure: true,
    when: ['IDR0.S1P', 'IDR0.Hyp'],
    section: '4.4.2.9',
    text: 'EL2 of any ASID, by address',
  },
  { ...RANGE_LOW, RES0_63_32: { bits: [63, 32], reserved: 'RES0' }, ...RANGE_HIGH, Address: VA },
);

/** Both stages of one VMID (4.4.3.2). */
export const CMD_TLBI_S12_VMALL = command(
  'CMD_TLBI_S12_VMALL',
  { opcode: 0x28, nonSecure: true, when: 'IDR0.S2P', section: '4.4.3.2', text: 'both stages of a VMID' },
  {
    RES0_31_8: { bits: [31, 8], reserved: 'RES0' },
    VMID,
    RES0_127_48: { bits: [127, 48], reserved: 'RES0' },
  },
);

/** Stage 2 by VMID and IPA (4.4.3.1). */
export const CMD_TLBI_S2_IPA = command(
  'CMD_TLBI_S2_IPA',
  { opcode: 0x2a, nonSecure: true, when: 'IDR0.S2P', section: '4.4.3.1', text: 'stage 2 of a VMID, by IPA' },
  {
    ...RANGE_LOW,
    VMID,
    RES0_63_48: { bits: [63, 48], reserved: 'RES0' },
    ...RANGE_HIGH,
    Address: IPA,
    RES0_127_120: { bits: [127, 120], reserved: 'RES0' },
  },
);

/** Everything Non-secure outside EL2 (4.4.4.1). */
export const CMD_TLBI_NSNH_ALL = command(
  'CMD_TLBI_NSNH_ALL',
  { opcode: 0x30, nonSecure: true, section: '4.4.4.1', text: 'both stages of all VMIDs' },
  NO_OPERANDS,
);

/** The whole DPT cache (4.6.1). */
export const CMD_DPTI_ALL = command(
  'CMD_DPTI_ALL',
  { opcode: 0x70, nonSecure: true, when: 'IDR3.DPT', section: '4.6.1', text: 'all DPT entries' },
  NO_OPERANDS,
);

/** DPT entries by physical address (4.6.2). */
export const CMD_DPTI_PA = command(
  'CMD_DPTI_PA',
  { opcode: 0x73, nonSecure: true, when: 'IDR3.DPT', section: '4.6.2', text: 'DPT entries by address' },
  {
    RES0_63_8: { bits: [63, 8], reserved: 'RES0' },
    Leaf: LEAF,
    RES0_71_65: { bits: [71, 65], reserved: 'RES0' },
    SIZE: {
      bits: [75, 72],
      values: {
        '4K': 0,
        '16K': 1,
        '64K': 2,
        '2M': 3,
        '32M': 4,
        '512M': 5,
        '1G': 6,
        '16G': 7,
        '64G': 8,
        '512G': 9,
      },
    },
    Address: IPA,
    RES0_127_120: { bits: [127, 120], reserved: 'RES0' },
  },
);
