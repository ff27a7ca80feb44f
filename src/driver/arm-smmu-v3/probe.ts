import { ADDRESS_BITS, type Caps, capsOf, IDR0, IDR1, IDR3, IDR5, IIDR } from '../../../spec/index.ts';
import type { SmmuNode } from '../../hw/bus.ts';
import { type Kernel, KernelError } from '../kernel.ts';
import { BATCH_ENTRIES } from './command-batch.ts';

/** The CPU beside the SMMU, as far as the driver cares. */
export interface CpuFeatures {
  /** Page size of the kernel in bytes. */
  readonly pageSize: 4096 | 16384 | 65536;
  /** The kernel runs at EL2 with VHE: stage 1 of the host is tagged NS-EL2-E2H. */
  readonly vhe: boolean;
  /** Virtual address bits of a process (VA_BITS). */
  readonly vaBits: number;
  /** Bits of an ASID of the CPU's MMU; its physical address bits. What SVA compares. */
  readonly asidBits: 8 | 16;
  readonly paBits: number;
}

/** A current server core. */
export const DEFAULT_CPU: CpuFeatures = { pageSize: 4096, vhe: true, vaBits: 48, asidBits: 16, paBits: 48 };

/** Largest block of the page allocator as log2 of pages (`MAX_PAGE_ORDER`); 8 is the default with CMA. */
export const DEFAULT_MAX_ORDER = 10;

/** What the driver knows of one SMMU after probe (`smmu->features` and the fields beside it). */
export interface Features {
  readonly caps: Caps;
  readonly coherent: boolean;
  readonly twoLevelStrtab: boolean;
  readonly twoLevelCd: boolean;
  readonly ats: boolean;
  readonly pri: boolean;
  readonly sev: boolean;
  readonly msi: boolean;
  /** CMD_SYNC completion by a write to its own slot (ARM_SMMU_OPT_MSIPOLL). */
  readonly msiPoll: boolean;
  readonly hyp: boolean;
  readonly e2h: boolean;
  readonly stalls: boolean;
  readonly stallForce: boolean;
  readonly stage1: boolean;
  readonly stage2: boolean;
  readonly nesting: boolean;
  readonly rangeInv: boolean;
  readonly s2fwb: boolean;
  readonly bbml2: boolean;
  readonly attrTypesOvr: boolean;
  readonly vax: boolean;
  /** Hardware updates of the Access flag, of the dirty state, of table Access flags. */
  readonly ha: boolean;
  readonly hd: boolean;
  readonly haft: boolean;
  readonly sva: boolean;
  /** A CMD_SYNC after 63 commands at the latest (ARM_SMMU_OPT_CMDQ_FORCE_SYNC). */
  readonly forceSync: boolean;
  readonly asidBits: number;
  readonly vmidBits: number;
  readonly sidBits: number;
  readonly ssidBits: number;
  /** Output address bits, as far as the driver knows them (52 at most). */
  readonly oas: number;
  /** Page sizes as a bit map. */
  readonly pgsizeBitmap: bigint;
  readonly cmdqLog2: number;
  readonly evtqLog2: number;
  readonly priqLog2: number;
  readonly maxStalls: number;
  /** Raw IDR0, IDR1, IDR3, IDR5, IIDR. */
  readonly raw: { readonly idr0: number; readonly idr1: number; readonly idr3: number; readonly idr5: number };
}

/** Options of {@link probeFeatures}. */
export interface ProbeOptions {
  readonly cpu: CpuFeatures;
  readonly maxOrder: number;
  /** Module parameter disable_msipolling. */
  readonly disableMsiPolling: boolean;
}

/** log2 of the bytes of a command and of an event. */
const CMD_SHIFT = 4;
const EVENT_SHIFT = 5;

const size = (shift: number): bigint => 1n << BigInt(shift);

const GRANULE_SIZES = {
  GRAN4K: size(12) | size(21) | size(30),
  GRAN16K: size(14) | size(25),
  GRAN64K: size(16) | size(29),
} as const;

/** Largest block of the 64 KB granule with 52-bit addresses. */
const SIZE_4T = size(42);

interface Errata {
  readonly noSev: boolean;
  readonly noNesting: boolean;
  readonly forceSync: boolean;
}

/** Known faults by product and revision (`arm_smmu_device_iidr_probe`). */
function errataOf(iidr: number): Errata {
  const none: Errata = { noSev: false, noNesting: false, forceSync: false };
  if (IIDR.of(iidr, 'Implementer') !== IIDR.fields.Implementer.values.ARM) return none;
  const variant = IIDR.of(iidr, 'Variant');
  const revision = IIDR.of(iidr, 'Revision');
  const { MMU_600, MMU_700 } = IIDR.fields.ProductID.values;
  const product = IIDR.of(iidr, 'ProductID');
  if (product === MMU_600) return { ...none, noSev: variant === 0 && revision <= 2, noNesting: variant < 2 };
  if (product === MMU_700 && (variant < 1 || revision < 1)) return { ...none, noNesting: true, forceSync: true };
  return none;
}

function refuse(broken: boolean, why: string): void {
  if (broken) throw new KernelError('ENXIO', why);
}

/**
 * Reads the ID registers and decides what to use (`arm_smmu_device_hw_probe`): IDR0, IDR1, IDR3, IDR5, IIDR, in this
 * order and nothing else.
 * @throws KernelError ENXIO if the hardware lacks something the driver cannot do without
 */
export function probeFeatures(kernel: Kernel, node: SmmuNode, options: ProbeOptions): Features {
  const read = (register: { readonly name: string; readonly offset: number }): number =>
    kernel.read32(`probe:${register.name}`, node.base + BigInt(register.offset));
  const idr0 = read(IDR0);
  const idr1 = read(IDR1);
  const idr3 = read(IDR3);
  const idr5 = read(IDR5);
  const iidr = read(IIDR);
  const caps = capsOf({ IDR0: idr0, IDR1: idr1, IDR3: idr3, IDR5: idr5, IIDR: iidr });
  const errata = errataOf(iidr);
  const { LITTLE, MIXED } = IDR0.fields.TTENDIAN.values;
  refuse(caps.TTENDIAN !== MIXED && caps.TTENDIAN !== LITTLE, 'IDR0.TTENDIAN: no little-endian tables');
  refuse(!caps.S1P && !caps.S2P, 'IDR0: no translation support');
  refuse(!caps.aarch64, 'IDR0.TTF: no AArch64 table format');
  refuse(caps.TABLES_PRESET || caps.QUEUES_PRESET || caps.REL, 'IDR1: embedded implementation not supported');
  const cap = Math.log2(options.cpu.pageSize) + options.maxOrder;
  const cmdqLog2 = Math.min(cap - CMD_SHIFT, caps.CMDQS);
  refuse(cmdqLog2 <= Math.log2(BATCH_ENTRIES), 'IDR1.CMDQS: the command queue is too small for a batch');
  const oas = Math.min(caps.OAS, 52) === caps.OAS ? caps.OAS : (ADDRESS_BITS[5] ?? 48);
  const msiPoll = caps.MSI && node.coherent && !options.disableMsiPolling;
  const { STALL_FORCED, STALL_TERMINATE } = IDR0.fields.STALL_MODEL.values;
  if (caps.COHACC !== node.coherent) kernel.log('warn', `${node.name}: IDR0.COHACC overridden by firmware`);
  const features: Omit<Features, 'sva'> = {
    caps,
    coherent: node.coherent,
    twoLevelStrtab: caps.ST_LEVEL === IDR0.fields.ST_LEVEL.values.TWO_LEVEL && caps.SIDSIZE > STRTAB_SPLIT,
    twoLevelCd: caps.CD2L,
    ats: caps.ATS,
    pri: caps.PRI,
    sev: caps.SEV && !errata.noSev,
    msi: caps.MSI,
    msiPoll,
    hyp: caps.Hyp,
    e2h: caps.Hyp && options.cpu.vhe,
    stalls: caps.STALL_MODEL === STALL_FORCED || caps.STALL_MODEL === STALL_TERMINATE,
    stallForce: caps.STALL_MODEL === STALL_FORCED,
    stage1: caps.S1P,
    stage2: caps.S2P,
    nesting: caps.S1P && caps.S2P && !errata.noNesting,
    rangeInv: caps.RIL,
    s2fwb: caps.FWB,
    bbml2: caps.BBML === IDR3.fields.BBML.values.LEVEL_2,
    attrTypesOvr: caps.ATTR_TYPES_OVR,
    vax: caps.VAX === IDR5.fields.VAX.values.BITS_52,
    ha: caps.HTTU >= IDR0.fields.HTTU.values.ACCESS,
    hd: caps.HTTU >= IDR0.fields.HTTU.values.ACCESS_DIRTY,
    haft: caps.HTTU >= IDR0.fields.HTTU.values.ACCESS_DIRTY_TABLE,
    forceSync: errata.forceSync,
    asidBits: caps.asidBits,
    vmidBits: caps.vmidBits,
    sidBits: caps.SIDSIZE,
    ssidBits: caps.SSIDSIZE,
    oas,
    pgsizeBitmap:
      (caps.GRAN4K ? GRANULE_SIZES.GRAN4K : 0n) |
      (caps.GRAN16K ? GRANULE_SIZES.GRAN16K : 0n) |
      (caps.GRAN64K ? GRANULE_SIZES.GRAN64K | (oas === 52 ? SIZE_4T : 0n) : 0n),
    cmdqLog2,
    evtqLog2: Math.min(cap - EVENT_SHIFT, caps.EVENTQS),
    priqLog2: Math.min(cap - CMD_SHIFT, caps.PRIQS),
    maxStalls: caps.STALL_MAX,
    raw: { idr0, idr1, idr3, idr5 },
  };
  return { ...features, sva: svaSupported(features, options.cpu) };
}

/** log2 of the STEs of a level 2 table (`STRTAB_SPLIT`). */
export const STRTAB_SPLIT = 8;

/** Whether the SMMU can walk the CPU's own tables (`arm_smmu_sva_supported`). */
function svaSupported(features: Omit<Features, 'sva'>, cpu: CpuFeatures): boolean {
  return (
    features.stage1 &&
    features.coherent &&
    (features.pgsizeBitmap & BigInt(cpu.pageSize)) !== 0n &&
    features.oas >= cpu.paBits &&
    features.asidBits >= cpu.asidBits &&
    (cpu.vaBits <= 48 || features.vax)
  );
}
