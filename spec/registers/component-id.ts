/** CoreSight component and peripheral identification (IHI 0070 6.3.170). Each register holds one byte. */
import { type Fields, type Register, register } from '../layout.ts';

const idRegister = <const F extends Fields>(name: string, offset: number, fields: F): Register<F> =>
  register(name, { offset, width: 32, access: 'RO', section: '6.3.170', text: 'component identification' }, fields);

const CIDR_FIELDS = {
  RES0_31_8: { bits: [31, 8], reserved: 'RES0' },
  PRMBL: { bits: [7, 0], text: 'fixed preamble' },
} as const;

/** Reads of CIDR0 to CIDR3 (6.3.170). */
export const CIDR_VALUES = [0x0d, 0xf0, 0x05, 0xb1] as const;

/** Peripheral id 4: size, JEP106 continuation. */
export const PIDR4 = idRegister('PIDR4', 0xfd0, {
  RES0_31_8: { bits: [31, 8], reserved: 'RES0' },
  SIZE: { bits: [7, 4] },
  DES_2: { bits: [3, 0], text: 'JEP106 continuation code' },
});

/** Peripheral id 5, reserved. */
export const PIDR5 = idRegister('PIDR5', 0xfd4, { RES0_31_0: { bits: [31, 0], reserved: 'RES0' } });

/** Peripheral id 6, reserved. */
export const PIDR6 = idRegister('PIDR6', 0xfd8, { RES0_31_0: { bits: [31, 0], reserved: 'RES0' } });

/** Peripheral id 7, reserved. */
export const PIDR7 = idRegister('PIDR7', 0xfdc, { RES0_31_0: { bits: [31, 0], reserved: 'RES0' } });

/** Peripheral id 0: part number, low byte. */
export const PIDR0 = idRegister('PIDR0', 0xfe0, {
  RES0_31_8: { bits: [31, 8], reserved: 'RES0' },
  PART_0: { bits: [7, 0], text: 'part number, low byte' },
});

/** Peripheral id 1: JEP106 identity, low nibble; part number, high nibble. */
export const PIDR1 = idRegister('PIDR1', 0xfe4, {
  RES0_31_8: { bits: [31, 8], reserved: 'RES0' },
  DES_0: { bits: [7, 4], text: 'JEP106 identity, low nibble' },
  PART_1: { bits: [3, 0], text: 'part number, high nibble' },
});

/** Peripheral id 2: revision; JEP106 identity, high bits. */
export const PIDR2 = idRegister('PIDR2', 0xfe8, {
  RES0_31_8: { bits: [31, 8], reserved: 'RES0' },
  REVISION: { bits: [7, 4] },
  JEDEC: { bits: [3, 3], reserved: 'RES1' },
  DES_1: { bits: [2, 0], text: 'JEP106 identity, high bits' },
});

/** Peripheral id 3: minor revisions. */
export const PIDR3 = idRegister('PIDR3', 0xfec, {
  RES0_31_8: { bits: [31, 8], reserved: 'RES0' },
  REVAND: { bits: [7, 4] },
  CMOD: { bits: [3, 0] },
});

/** Component id 0. */
export const CIDR0 = idRegister('CIDR0', 0xff0, CIDR_FIELDS);

/** Component id 1. */
export const CIDR1 = idRegister('CIDR1', 0xff4, CIDR_FIELDS);

/** Component id 2. */
export const CIDR2 = idRegister('CIDR2', 0xff8, CIDR_FIELDS);

/** Component id 3. */
export const CIDR3 = idRegister('CIDR3', 0xffc, CIDR_FIELDS);
