/** Control registers: CR0 to AGBPA, S2PII (IHI 0070 6.3.9 to 6.3.15, 6.3.17). */
import { MEMATTR, SHAREABILITY, STAGE2_PERMISSIONS } from '../encodings.ts';
import { register } from '../layout.ts';

/** Cacheability of table and queue accesses; 3 is reserved and acts as NC. */
const CACHEABILITY = { NC: 0, WB: 1, WT: 2 } as const;

const CR0_FIELDS = {
  RES0_31_11: { bits: [31, 11], reserved: 'RES0' },
  DPT_WALK_EN: { bits: [10, 10], when: 'IDR3.DPT', text: 'DPT walks' },
  RES0_9: { bits: [9, 9], reserved: 'RES0' },
  VMW: {
    bits: [8, 6],
    when: 'IDR0.VMW',
    values: { EXACT: 0, IGNORE_1: 1, IGNORE_2: 2, IGNORE_3: 3, IGNORE_4: 4 },
    text: 'low VMID bits that invalidation ignores; reserved values act as EXACT',
  },
  RES0_5: { bits: [5, 5], reserved: 'RES0' },
  ATSCHK: {
    bits: [4, 4],
    when: 'IDR0.ATS',
    values: { FAST: 0, SAFE: 1 },
    text: 'check ATS Translated traffic against STE.EATS',
  },
  CMDQEN: { bits: [3, 3], text: 'Command queue processing' },
  EVENTQEN: { bits: [2, 2], text: 'Event queue writes' },
  PRIQEN: { bits: [1, 1], when: 'IDR0.PRI', text: 'PRI queue writes' },
  SMMUEN: { bits: [0, 0], text: 'translation; 0: bypass or abort as GBPA says' },
} as const;

/** Enables (6.3.9). A field counts as changed when its copy in CR0ACK has followed. */
export const CR0 = register(
  'CR0',
  { offset: 0x20, width: 32, access: 'RW', section: '6.3.9', text: 'enables' },
  CR0_FIELDS,
);

/** Enables in force (6.3.10). */
export const CR0ACK = register(
  'CR0ACK',
  { offset: 0x24, width: 32, access: 'RO', section: '6.3.10', text: 'enables in force' },
  CR0_FIELDS,
);

/** Memory attributes of table and queue accesses (6.3.11). */
export const CR1 = register(
  'CR1',
  { offset: 0x28, width: 32, access: 'RW', section: '6.3.11', text: 'attributes of table and queue accesses' },
  {
    RES0_31_12: { bits: [31, 12], reserved: 'RES0' },
    TABLE_SH: { bits: [11, 10], values: SHAREABILITY, text: 'Stream table and VMS fetches: shareability' },
    TABLE_OC: { bits: [9, 8], values: CACHEABILITY, text: 'outer cacheability' },
    TABLE_IC: { bits: [7, 6], values: CACHEABILITY, text: 'inner cacheability' },
    QUEUE_SH: { bits: [5, 4], values: SHAREABILITY, text: 'queue accesses: shareability' },
    QUEUE_OC: { bits: [3, 2], values: CACHEABILITY, text: 'outer cacheability' },
    QUEUE_IC: { bits: [1, 0], values: CACHEABILITY, text: 'inner cacheability' },
  },
);

/** Behaviour set while translation is off (6.3.12). */
export const CR2 = register(
  'CR2',
  { offset: 0x2c, width: 32, access: 'RW', section: '6.3.12', text: 'behaviour set while translation is off' },
  {
    RES0_31_4: { bits: [31, 4], reserved: 'RES0' },
    REC_CFG_ATS: { bits: [3, 3], when: 'IDR0.ATSRECERR', text: 'record configuration errors of ATS and PRI' },
    PTM: { bits: [2, 2], when: 'IDR0.BTM', text: 'private TLB: take no part in broadcast invalidation' },
    RECINVSID: { bits: [1, 1], text: 'record C_BAD_STREAMID' },
    E2H: { bits: [0, 0], when: 'IDR0.Hyp', text: 'STRW 2 selects NS-EL2-E2H' },
  },
);

/** Stage 2 permissions by PIIndex (6.3.17). 1 and 5 are reserved and act as NONE. */
export const S2PII = register(
  'S2PII',
  { offset: 0x30, width: 64, access: 'RW', section: '6.3.17', when: 'IDR3.S2PI', text: 'stage 2 permissions by index' },
  {
    Perm15: { bits: [63, 60], values: STAGE2_PERMISSIONS },
    Perm14: { bits: [59, 56], values: STAGE2_PERMISSIONS },
    Perm13: { bits: [55, 52], values: STAGE2_PERMISSIONS },
    Perm12: { bits: [51, 48], values: STAGE2_PERMISSIONS },
    Perm11: { bits: [47, 44], values: STAGE2_PERMISSIONS },
    Perm10: { bits: [43, 40], values: STAGE2_PERMISSIONS },
    Perm9: { bits: [39, 36], values: STAGE2_PERMISSIONS },
    Perm8: { bits: [35, 32], values: STAGE2_PERMISSIONS },
    Perm7: { bits: [31, 28], values: STAGE2_PERMISSIONS },
    Perm6: { bits: [27, 24], values: STAGE2_PERMISSIONS },
    Perm5: { bits: [23, 20], values: STAGE2_PERMISSIONS },
    Perm4: { bits: [19, 16], values: STAGE2_PERMISSIONS },
    Perm3: { bits: [15, 12], values: STAGE2_PERMISSIONS },
    Perm2: { bits: [11, 8], values: STAGE2_PERMISSIONS },
    Perm1: { bits: [7, 4], values: STAGE2_PERMISSIONS },
    Perm0: { bits: [3, 0], values: STAGE2_PERMISSIONS },
  },
);

/** Whether anything is cached or in flight (6.3.13). */
export const STATUSR = register(
  'STATUSR',
  { offset: 0x40, width: 32, access: 'RO', section: '6.3.13', text: 'dormancy' },
  {
    RES0_31_1: { bits: [31, 1], reserved: 'RES0' },
    DORMANT: { bits: [0, 0], when: 'IDR0.DORMHINT', text: 'nothing cached, no prefetch in flight' },
  },
);

/** What happens to client traffic while SMMUEN is 0 (6.3.14). A write takes effect only if it sets Update. */
export const GBPA = register(
  'GBPA',
  { offset: 0x44, width: 32, access: 'RW', section: '6.3.14', text: 'traffic while SMMUEN is 0' },
  {
    Update: { bits: [31, 31], text: 'write 1 with the new values; reads 1 until they are applied' },
    RES0_30_21: { bits: [30, 21], reserved: 'RES0' },
    ABORT: { bits: [20, 20], text: 'abort all client traffic' },
    INSTCFG: { bits: [19, 18], when: 'IDR1.ATTR_PERMS_OVR', values: { INCOMING: 0, DATA: 2, INSTRUCTION: 3 } },
    PRIVCFG: { bits: [17, 16], when: 'IDR1.ATTR_PERMS_OVR', values: { INCOMING: 0, UNPRIVILEGED: 2, PRIVILEGED: 3 } },
    RES0_15_14: { bits: [15, 14], reserved: 'RES0' },
    SHCFG: { bits: [13, 12], values: { NSH: 0, INCOMING: 1, OSH: 2, ISH: 3 } },
    ALLOCCFG: { bits: [11, 8], text: '0xxx: incoming hints; 1rwt: force RA, WA, TR' },
    RES0_7_5: { bits: [7, 5], reserved: 'RES0' },
    MTCFG: { bits: [4, 4], values: { INCOMING: 0, MEMATTR: 1 } },
    MemAttr: { bits: [3, 0], values: MEMATTR },
  },
);

/** Implementation defined companion of GBPA (6.3.15). */
export const AGBPA = register(
  'AGBPA',
  { offset: 0x48, width: 32, access: 'RW', section: '6.3.15', text: 'alternate GBPA' },
  { IMPDEF_31_0: { bits: [31, 0], reserved: 'IMPDEF' } },
);
