import { describe, expect, test } from 'vitest';
import {
  ATOS_PAR_FAULT,
  CMDQ_BASE,
  CMDQ_CONS,
  CR0,
  CR0ACK,
  CR1,
  CR2,
  DPT_BASE_CFG,
  ECMDQ_CONS,
  ECMDQ_PROD,
  EVENTQ_BASE,
  EVENTQ_PROD,
  ecmdqStride,
  fromQwords,
  GATOS_ADDR,
  GATOS_PAR,
  GATOS_SID,
  GBPA,
  GERROR,
  GERROR_IRQ_CFG0,
  GERRORN,
  IDR0,
  IDR1,
  IDR5,
  IRQ_CTRL,
  MIN_FOOTPRINT,
  PAGE1,
  PRIQ_IRQ_CFG2,
  REGISTERS,
  type Register,
  STRTAB_BASE,
  STRTAB_BASE_CFG,
  vatosPage,
} from '../../spec/index.ts';

/** Non-zero fields of a register value. */
const fieldsOf = (register: Register, value: bigint): Record<string, bigint> =>
  Object.fromEntries(Object.entries(register.decode(fromQwords([value]))).filter(([, field]) => field !== 0n));

describe('register tables', () => {
  test.each(REGISTERS.map((register) => [register.name, register] as const))('%s owns each bit once', (_, register) => {
    expect(register.coverage()).toEqual([]);
    expect(register.bytes * 8).toBe(register.info.width);
    expect(register.offset % register.bytes).toBe(0);
  });

  test('no two registers of one page share a byte, repeats included [6.2]', () => {
    const owners = new Map<string, string>();
    const shared: string[] = [];
    for (const { name, page, offset, bytes, info } of REGISTERS)
      for (let i = 0; i < (info.repeat?.count ?? 1); i++)
        for (let byte = 0; byte < bytes; byte++) {
          const at = `${page}+${offset + i * (info.repeat?.stride ?? 0) + byte}`;
          if (owners.has(at)) shared.push(`${name} and ${owners.get(at)} at ${at}`);
          owners.set(at, name);
        }
    expect(shared).toEqual([]);
  });

  test('names are unique', () => {
    expect(new Set(REGISTERS.map(({ name }) => name)).size).toBe(REGISTERS.length);
  });
});

/** Page, offset, width, access as the register index of 6.2 prints them. */
const INDEX: readonly [name: string, page: string, offset: number, width: number, access: string, section: string][] = [
  ['IDR0', 'page0', 0x000, 32, 'RO', '6.3.1'],
  ['IDR1', 'page0', 0x004, 32, 'RO', '6.3.2'],
  ['IDR2', 'page0', 0x008, 32, 'RO', '6.3.3'],
  ['IDR3', 'page0', 0x00c, 32, 'RO', '6.3.4'],
  ['IDR4', 'page0', 0x010, 32, 'RO', '6.3.5'],
  ['IDR5', 'page0', 0x014, 32, 'RO', '6.3.6'],
  ['IIDR', 'page0', 0x018, 32, 'RO', '6.3.7'],
  ['AIDR', 'page0', 0x01c, 32, 'RO', '6.3.8'],
  ['CR0', 'page0', 0x020, 32, 'RW', '6.3.9'],
  ['CR0ACK', 'page0', 0x024, 32, 'RO', '6.3.10'],
  ['CR1', 'page0', 0x028, 32, 'RW', '6.3.11'],
  ['CR2', 'page0', 0x02c, 32, 'RW', '6.3.12'],
  ['S2PII', 'page0', 0x030, 64, 'RW', '6.3.17'],
  ['STATUSR', 'page0', 0x040, 32, 'RO', '6.3.13'],
  ['GBPA', 'page0', 0x044, 32, 'RW', '6.3.14'],
  ['AGBPA', 'page0', 0x048, 32, 'RW', '6.3.15'],
  ['IRQ_CTRL', 'page0', 0x050, 32, 'RW', '6.3.16'],
  ['IRQ_CTRLACK', 'page0', 0x054, 32, 'RO', '6.3.18'],
  ['GERROR', 'page0', 0x060, 32, 'RO', '6.3.19'],
  ['GERRORN', 'page0', 0x064, 32, 'RW', '6.3.20'],
  ['GERROR_IRQ_CFG0', 'page0', 0x068, 64, 'RW', '6.3.21'],
  ['GERROR_IRQ_CFG1', 'page0', 0x070, 32, 'RW', '6.3.22'],
  ['GERROR_IRQ_CFG2', 'page0', 0x074, 32, 'RW', '6.3.23'],
  ['STRTAB_BASE', 'page0', 0x080, 64, 'RW', '6.3.24'],
  ['STRTAB_BASE_CFG', 'page0', 0x088, 32, 'RW', '6.3.25'],
  ['CMDQ_BASE', 'page0', 0x090, 64, 'RW', '6.3.26'],
  ['CMDQ_PROD', 'page0', 0x098, 32, 'RW', '6.3.27'],
  ['CMDQ_CONS', 'page0', 0x09c, 32, 'RW', '6.3.28'],
  ['EVENTQ_BASE', 'page0', 0x0a0, 64, 'RW', '6.3.29'],
  ['EVENTQ_PROD', 'page1', 0x0a8, 32, 'RW', '6.3.95'],
  ['EVENTQ_CONS', 'page1', 0x0ac, 32, 'RW', '6.3.96'],
  ['EVENTQ_IRQ_CFG0', 'page0', 0x0b0, 64, 'RW', '6.3.30'],
  ['EVENTQ_IRQ_CFG1', 'page0', 0x0b8, 32, 'RW', '6.3.31'],
  ['EVENTQ_IRQ_CFG2', 'page0', 0x0bc, 32, 'RW', '6.3.32'],
  ['PRIQ_BASE', 'page0', 0x0c0, 64, 'RW', '6.3.33'],
  ['PRIQ_PROD', 'page1', 0x0c8, 32, 'RW', '6.3.97'],
  ['PRIQ_CONS', 'page1', 0x0cc, 32, 'RW', '6.3.98'],
  ['PRIQ_IRQ_CFG0', 'page0', 0x0d0, 64, 'RW', '6.3.34'],
  ['PRIQ_IRQ_CFG1', 'page0', 0x0d8, 32, 'RW', '6.3.35'],
  ['PRIQ_IRQ_CFG2', 'page0', 0x0dc, 32, 'RW', '6.3.36'],
  ['GATOS_CTRL', 'page0', 0x100, 32, 'RW', '6.3.37'],
  ['GATOS_SID', 'page0', 0x108, 64, 'RW', '6.3.38'],
  ['GATOS_ADDR', 'page0', 0x110, 64, 'RW', '6.3.39'],
  ['GATOS_PAR', 'page0', 0x118, 64, 'RO', '6.3.40'],
  ['MPAMIDR', 'page0', 0x130, 32, 'RO', '6.3.41'],
  ['GMPAM', 'page0', 0x138, 32, 'RW', '6.3.42'],
  ['GBPMPAM', 'page0', 0x13c, 32, 'RW', '6.3.43'],
  ['VATOS_SEL', 'page0', 0x180, 32, 'RW', '6.3.44'],
  ['IDR6', 'page0', 0x190, 32, 'RO', '6.3.45'],
  ['DPT_BASE', 'page0', 0x200, 64, 'RW', '6.3.46'],
  ['DPT_BASE_CFG', 'page0', 0x208, 32, 'RW', '6.3.47'],
  ['DPT_CFG_FAR', 'page0', 0x210, 64, 'W0C', '6.3.48'],
  ['PIDR4', 'page0', 0xfd0, 32, 'RO', '6.3.170'],
  ['PIDR5', 'page0', 0xfd4, 32, 'RO', '6.3.170'],
  ['PIDR6', 'page0', 0xfd8, 32, 'RO', '6.3.170'],
  ['PIDR7', 'page0', 0xfdc, 32, 'RO', '6.3.170'],
  ['PIDR0', 'page0', 0xfe0, 32, 'RO', '6.3.170'],
  ['PIDR1', 'page0', 0xfe4, 32, 'RO', '6.3.170'],
  ['PIDR2', 'page0', 0xfe8, 32, 'RO', '6.3.170'],
  ['PIDR3', 'page0', 0xfec, 32, 'RO', '6.3.170'],
  ['CIDR0', 'page0', 0xff0, 32, 'RO', '6.3.170'],
  ['CIDR1', 'page0', 0xff4, 32, 'RO', '6.3.170'],
  ['CIDR2', 'page0', 0xff8, 32, 'RO', '6.3.170'],
  ['CIDR3', 'page0', 0xffc, 32, 'RO', '6.3.170'],
  ['CMDQ_CONTROL_PAGE_BASE', 'page0', 0x4000, 64, 'RO', '6.3.49'],
  ['CMDQ_CONTROL_PAGE_CFG', 'page0', 0x4008, 32, 'RO', '6.3.50'],
  ['CMDQ_CONTROL_PAGE_STATUS', 'page0', 0x400c, 32, 'RO', '6.3.51'],
  ['VATOS_CTRL', 'vatos', 0xa00, 32, 'RW', '6.3.99'],
  ['VATOS_SID', 'vatos', 0xa08, 64, 'RW', '6.3.100'],
  ['VATOS_ADDR', 'vatos', 0xa10, 64, 'RW', '6.3.101'],
  ['VATOS_PAR', 'vatos', 0xa18, 64, 'RO', '6.3.102'],
  ['ECMDQ_BASE', 'ecmdq', 0x0, 64, 'RW', '6.3.107'],
  ['ECMDQ_PROD', 'ecmdq', 0x8, 32, 'RW', '6.3.108'],
  ['ECMDQ_CONS', 'ecmdq', 0xc, 32, 'RW', '6.3.109'],
];

test('the map has every Non-secure register in order, at its place [6.2]', () => {
  const map = REGISTERS.map((r) => [r.name, r.page, r.offset, r.info.width, r.access, r.section]);
  expect(map).toEqual(INDEX);
});

test('pages lie where 6.1 puts them', () => {
  expect(PAGE1).toBe(0x10000);
  expect(MIN_FOOTPRINT).toBe(0x20000);
  expect(vatosPage(0)).toBe(0x20000);
  expect(vatosPage(3)).toBe(0x50000);
});

test('ECMDQs are spread evenly over a control page [6.2.5]', () => {
  expect(ecmdqStride(0)).toBe(0x10000);
  expect(ecmdqStride(7)).toBe(0x200);
  expect(ecmdqStride(8)).toBe(0x100);
});

describe('values that Linux 7.2 and QEMU 11.1 leave in registers', () => {
  const seen: readonly [Register, bigint, Record<string, bigint>][] = [
    [CR0, 0xdn, { SMMUEN: 1n, EVENTQEN: 1n, CMDQEN: 1n }],
    [CR0ACK, 0x1fn, { SMMUEN: 1n, PRIQEN: 1n, EVENTQEN: 1n, CMDQEN: 1n, ATSCHK: 1n }],
    [CR1, 0xd75n, { TABLE_SH: 3n, TABLE_OC: 1n, TABLE_IC: 1n, QUEUE_SH: 3n, QUEUE_OC: 1n, QUEUE_IC: 1n }],
    [CR2, 0x7n, { PTM: 1n, RECINVSID: 1n, E2H: 1n }],
    [GBPA, 0x1000n, { SHCFG: 1n }],
    [IRQ_CTRL, 0x5n, { EVENTQ_IRQEN: 1n, GERROR_IRQEN: 1n }],
    [STRTAB_BASE, 0x4000000044aa3000n, { RA: 1n, ADDR: 0x44aa3000n >> 6n }],
    [STRTAB_BASE_CFG, 0x10210n, { FMT: 1n, SPLIT: 8n, LOG2SIZE: 16n }],
    [CMDQ_BASE, 0x400000005bf00010n, { RA: 1n, ADDR: 0x5bf00000n >> 5n, LOG2SIZE: 16n }],
    [EVENTQ_BASE, 0x4000000041800011n, { WA: 1n, ADDR: 0x41800000n >> 5n, LOG2SIZE: 17n }],
    [
      IDR0,
      0x0d44101bn,
      {
        S2P: 1n,
        S1P: 1n,
        TTF: 2n,
        COHACC: 1n,
        ASID16: 1n,
        VMID16: 1n,
        TTENDIAN: 2n,
        STALL_MODEL: 1n,
        TERM_MODEL: 1n,
        ST_LEVEL: 1n,
      },
    ],
    [IDR1, 0x02730010n, { SIDSIZE: 16n, EVENTQS: 19n, CMDQS: 19n }],
    [IDR5, 0x74n, { OAS: 4n, GRAN4K: 1n, GRAN16K: 1n, GRAN64K: 1n }],
  ];
  for (const [register, value, fields] of seen)
    test(`${register.name} = 0x${value.toString(16)}`, () => expect(fieldsOf(register, value)).toEqual(fields));

  test('address fields give addresses', () => {
    expect(STRTAB_BASE.address(fromQwords([0x4000000044aa3000n]), 'ADDR')).toBe(0x44aa3000n);
    expect(CMDQ_BASE.address(fromQwords([0x400000005bf00010n]), 'ADDR')).toBe(0x5bf00000n);
    expect(GERROR_IRQ_CFG0.address(fromQwords([0x8020044n]), 'ADDR')).toBe(0x8020044n);
  });
});

describe('bit positions of registers that no recording sets [6.3]', () => {
  const positions: readonly [Register, string, string][] = [
    [CR0, 'VMW', '8:6'],
    [CR0, 'DPT_WALK_EN', '10:10'],
    [CR2, 'REC_CFG_ATS', '3:3'],
    [GBPA, 'Update', '31:31'],
    [GBPA, 'ABORT', '20:20'],
    [GBPA, 'INSTCFG', '19:18'],
    [GBPA, 'PRIVCFG', '17:16'],
    [GBPA, 'ALLOCCFG', '11:8'],
    [GBPA, 'MTCFG', '4:4'],
    [GERROR, 'SFM_ERR', '8:8'],
    [GERROR, 'CMDQP_ERR', '9:9'],
    [GERROR, 'DPT_ERR', '10:10'],
    [GERROR, 'EVENTQ_ABT_ERR', '2:2'],
    [GERRORN, 'MSI_GERROR_ABT_ERR', '7:7'],
    [PRIQ_IRQ_CFG2, 'LO', '31:31'],
    [PRIQ_IRQ_CFG2, 'SH', '5:4'],
    [CMDQ_CONS, 'ERR', '30:24'],
    [EVENTQ_PROD, 'OVFLG', '31:31'],
    [GATOS_SID, 'SSID_VALID', '52:52'],
    [GATOS_SID, 'SUBSTREAMID', '51:32'],
    [GATOS_ADDR, 'TYPE', '11:10'],
    [GATOS_ADDR, 'HTTUI', '6:6'],
    [GATOS_PAR, 'ATTR', '63:56'],
    [GATOS_PAR, 'Size', '11:11'],
    [DPT_BASE_CFG, 'L0DPTSZ', '23:20'],
    [DPT_BASE_CFG, 'DPTGS', '15:14'],
    [ECMDQ_PROD, 'ERRACK', '23:23'],
    [ECMDQ_CONS, 'ERR_REASON', '26:24'],
    [ECMDQ_CONS, 'ENACK', '31:31'],
  ];
  for (const [register, field, bits] of positions)
    test(`${register.name}.${field} is ${bits}`, () => expect(register.bits(field)).toBe(bits));

  test('a failed ATOS keeps its code in bits 11:4 and the reason in 2:1 [6.3.40]', () => {
    expect(ATOS_PAR_FAULT.coverage()).toEqual([]);
    const par = fromQwords([0x0000_0000_8765_4107n]);
    expect(ATOS_PAR_FAULT.valueName('FAULTCODE', ATOS_PAR_FAULT.get(par, 'FAULTCODE'))).toBe('F_TRANSLATION');
    expect(ATOS_PAR_FAULT.valueName('REASON', ATOS_PAR_FAULT.get(par, 'REASON'))).toBe('S2_IN');
    expect(ATOS_PAR_FAULT.address(par, 'FADDR')).toBe(0x87654000n);
  });
});
