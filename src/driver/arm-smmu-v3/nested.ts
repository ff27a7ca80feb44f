/** What a VM may say in its STEs and commands, and what becomes of it (kernel: arm-smmu-v3-iommufd.c; linux-driver 9). */
import {
  CMD_ATC_INV,
  CMD_CFGI_CD,
  CMD_CFGI_CD_ALL,
  CMD_TLBI_NH_ALL,
  CMD_TLBI_NH_ASID,
  CMD_TLBI_NH_VA,
  CMD_TLBI_NH_VAA,
  CMD_TLBI_NSNH_ALL,
  opcodeOf,
  STE,
  type Words,
} from '../../../spec/index.ts';
import { KernelError } from '../kernel.ts';
import { tlbiNhAll } from './commands.ts';

/** What a vSTE asks for. */
export type VsteMode = 'abort' | 'bypass' | 'translate';

/** A vSTE that was accepted. */
export interface AcceptedVste {
  /** Four halves; EATS stripped of a translating one, all zero if V was 0. */
  readonly vste: Words;
  readonly enableAts: boolean;
}

/** The part; a test or the bug zoo wraps it. */
export interface NestedPart {
  /** @throws KernelError EIO for anything the hardware must not see (`arm_smmu_validate_vste`) */
  validateVste(vste: Words): AcceptedVste;
  mode(vste: Words): VsteMode;
  translates(vste: Words): boolean;
  /**
   * A VM's command as it is issued (`arm_vsmmu_convert_user_cmd`).
   * @param sidOf the StreamID behind a vSID; undefined: there is none
   * @throws KernelError EIO
   */
  convertCommand(command: Words, vmid: number, sidOf: (vsid: number) => number | undefined): Words;
}

/** Fields of a vSTE that a VM may set (STRTAB_STE_0_NESTING_ALLOWED, STRTAB_STE_1_NESTING_ALLOWED). */
const ALLOWED = STE.mask([
  'V',
  'Config',
  'S1Fmt',
  'S1ContextPtr',
  'S1CDMax',
  'S1DSS',
  'S1CIR',
  'S1COR',
  'S1CSH',
  'S1STALLD',
  'EATS',
]);

/** Address bits that the kernel knows (STRTAB_STE_0_S1CTXPTR_MASK); the field itself has had 56 since DPT. */
const CONTEXT_PTR_BITS = 52n;

const CONFIGS = STE.fields.Config.values;
const EATS = STE.fields.EATS.values;

/** A vSTE has the first two 64-bit words of an STE. */
const VSTE_WORDS = 4;

const asSte = (vste: Words): Words => {
  const ste = STE.zero();
  for (let i = 0; i < VSTE_WORDS; i++) ste[i] = vste[i] ?? 0;
  return ste;
};

function validateVste(vste: Words): AcceptedVste {
  const ste = asSte(vste);
  if (STE.num(ste, 'V') === 0) return { vste: new Uint32Array(VSTE_WORDS), enableAts: false };
  for (let i = 0; i < VSTE_WORDS; i++)
    if (((ste[i] ?? 0) & ~(ALLOWED[i] ?? 0)) !== 0)
      throw new KernelError('EIO', `the vSTE sets bits in word ${i >>> 1} that a VM may not set`);
  if (STE.address(ste, 'S1ContextPtr') >> CONTEXT_PTR_BITS !== 0n)
    throw new KernelError('EIO', `vSTE.S1ContextPtr has more than ${CONTEXT_PTR_BITS} bits`);
  const config = STE.num(ste, 'Config');
  if (config !== CONFIGS.ABORT && config !== CONFIGS.BYPASS && config !== CONFIGS.S1_TRANS)
    throw new KernelError('EIO', `vSTE.Config ${config} is not abort, bypass or stage 1`);
  const eats = STE.num(ste, 'EATS');
  if (eats !== EATS.OFF && eats !== EATS.FULL) throw new KernelError('EIO', `vSTE.EATS ${eats} is not 0 or 1`);
  const translating = config === CONFIGS.S1_TRANS;
  if (translating) STE.set(ste, 'EATS', EATS.OFF);
  return { vste: ste.slice(0, VSTE_WORDS), enableAts: translating && eats === EATS.FULL };
}

function mode(vste: Words): VsteMode {
  const config = STE.num(vste, 'Config');
  if (STE.num(vste, 'V') === 0 || config === CONFIGS.ABORT) return 'abort';
  return config === CONFIGS.BYPASS ? 'bypass' : 'translate';
}

/** Replaces the VMID field of a command whose layout has one. */
function withVmid(command: Words, vmid: number): Words {
  const out = command.slice();
  CMD_TLBI_NH_ALL.set(out, 'VMID', vmid);
  return out;
}

function withSid(command: Words, sidOf: (vsid: number) => number | undefined): Words {
  const vsid = CMD_CFGI_CD_ALL.num(command, 'StreamID');
  const sid = sidOf(vsid);
  if (sid === undefined) throw new KernelError('EIO', `no vDEVICE has vSID 0x${vsid.toString(16)}`);
  const out = command.slice();
  CMD_CFGI_CD_ALL.set(out, 'StreamID', sid);
  return out;
}

function convertCommand(command: Words, vmid: number, sidOf: (vsid: number) => number | undefined): Words {
  switch (opcodeOf(command)) {
    case CMD_TLBI_NSNH_ALL.opcode:
      return tlbiNhAll(vmid);
    case CMD_TLBI_NH_VA.opcode:
    case CMD_TLBI_NH_VAA.opcode:
    case CMD_TLBI_NH_ALL.opcode:
    case CMD_TLBI_NH_ASID.opcode:
      return withVmid(command, vmid);
    case CMD_ATC_INV.opcode:
    case CMD_CFGI_CD.opcode:
    case CMD_CFGI_CD_ALL.opcode:
      return withSid(command, sidOf);
    default:
      throw new KernelError('EIO', `a VM may not issue opcode 0x${opcodeOf(command).toString(16)}`);
  }
}

/** The kernel's. */
export const nestedPart: NestedPart = {
  validateVste,
  mode,
  translates: (vste) => mode(vste) === 'translate',
  convertCommand,
};
