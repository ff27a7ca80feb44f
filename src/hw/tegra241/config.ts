/**
 * What a Tegra241 CMDQV is: its parameters, and the choices that nobody documents. Plain data. Each choice is a line of
 * docs/impdef.md, section "Tegra241 CMDQV".
 */
import {
  CMDQV_CONFIG,
  CMDQV_MAX_SIDS,
  CMDQV_MAX_VCMDQS,
  CMDQV_MAX_VINTFS,
  CMDQV_PARAM,
} from '../../../spec/tegra241.ts';

/** CMDQV_PARAM. Counts are log2. */
export interface CmdqvParam {
  readonly VER: number;
  readonly NUM_VCMDQ_LOG2: number;
  readonly NUM_VINTF_LOG2: number;
  readonly NUM_SID_PER_VM_LOG2: number;
}

/** Undocumented behaviour. The first value of each list is the default. */
export interface CmdqvOptions {
  /** A logical window's slot that no VCMDQ is mapped to. */
  readonly unmappedSlot: 'razwi' | 'abort';
  /** The global window on a VCMDQ that is mapped. */
  readonly globalWindow: 'alias' | 'blocked';
  /** ALLOCATED = 1 out of ascending order. A slot that another VCMDQ has is never taken. */
  readonly allocOutOfOrder: 'unmapped' | 'write-ignored' | 'mapped';
  /** VINTF or LVCMDQ of CMDQ_ALLOC rewritten while ALLOCATED. */
  readonly allocRewrite: 'latched' | 'takes-effect';
  /** ALLOCATED 1 to 0 while the VCMDQ runs. */
  readonly unmapRunning: 'stop' | 'keep-running';
  /** VMID or HYP_OWN rewritten while EN. */
  readonly vintfRewrite: 'latched' | 'takes-effect';
  /** EN of a VCMDQ or VINTF written while what is above it is off: follows when that goes on, or needs EN anew. */
  readonly earlyEnable: 'follows' | 'lost';
  /** What a VINTF's VCMDQs keep when it is disabled: everything, or page 1 only (QEMU). */
  readonly vintfDisable: 'keep' | 'reset-queues';
  /** CMDQ_INIT_ERR: toggled and acknowledged like the others, or a level that a good BASE clears (QEMU). */
  readonly initError: 'toggle' | 'level';
  /** BASE or CONS_INDX_BASE written while the VCMDQ is enabled. */
  readonly baseWhileEnabled: 'ignored' | 'taken';
  /** CONS written while the VCMDQ is enabled. */
  readonly consWhileEnabled: 'ignored' | 'taken';
  /** An architected command that a VM's queue may not issue. */
  readonly notPermitted: 'ill-access' | 'ill' | 'skip';
  /** CMD_ATC_INV whose StreamID no enabled pair matches. The raw StreamID is never used. */
  readonly noSidMatch: 'ill-access' | 'ill' | 'skip';
  /** CMD_SYNC with CS = IRQ or SEV. */
  readonly syncSignal: 'ill' | 'as-none';
  /** Unmasking a VINTF that has an error. */
  readonly unmaskInterrupt: 'none' | 'pulse';
  /** Error maps follow GERROR and GERRORN, or stay as they were at the last error (QEMU). */
  readonly errorMaps: 'derived' | 'at-last-error';
  /** Bits of GERROR that count for the error maps and the interrupt. */
  readonly mapBits: 'all' | 'cmdq-err';
  /** CONS write-back to memory exists. */
  readonly consDram: boolean;
  /** CMDQV_CONFIG after reset. */
  readonly resetConfig: number;
}

/** A CMDQV as configured. */
export interface CmdqvConfig {
  readonly param: CmdqvParam;
  readonly options?: Partial<CmdqvOptions>;
}

/** The largest: 128 VCMDQs, 64 VINTFs, 16 StreamID pairs each; two VCMDQs for a VM. */
export const HOST_PARAM: CmdqvParam = { VER: 1, NUM_VCMDQ_LOG2: 7, NUM_VINTF_LOG2: 6, NUM_SID_PER_VM_LOG2: 4 };

/** 8 VCMDQs, 4 VINTFs, 2 StreamID pairs each: exhaustion is near. */
export const SMALL_PARAM: CmdqvParam = { VER: 1, NUM_VCMDQ_LOG2: 3, NUM_VINTF_LOG2: 2, NUM_SID_PER_VM_LOG2: 1 };

/** Defaults of {@link CmdqvOptions}. CMDQV_CONFIG as QEMU resets it: enabled, 16-byte commands. */
export const DEFAULT_CMDQV_OPTIONS: CmdqvOptions = {
  unmappedSlot: 'razwi',
  globalWindow: 'alias',
  allocOutOfOrder: 'unmapped',
  allocRewrite: 'latched',
  unmapRunning: 'stop',
  vintfRewrite: 'latched',
  earlyEnable: 'follows',
  vintfDisable: 'keep',
  initError: 'toggle',
  baseWhileEnabled: 'ignored',
  consWhileEnabled: 'ignored',
  notPermitted: 'ill-access',
  noSidMatch: 'ill-access',
  syncSignal: 'ill',
  unmaskInterrupt: 'none',
  errorMaps: 'derived',
  mapBits: 'all',
  consDram: true,
  resetConfig: CMDQV_CONFIG.value({
    CMDQ_MAX_CMD_BATCH: 32,
    CMDQ_MAX_CLK_BATCH: 8,
    CMDQV_PER_CMD_OFFSET: '16B',
    CMDQV_EN: 1,
  }),
};

/** How many of everything a parameter set gives. */
export interface CmdqvCounts {
  readonly vcmdqs: number;
  readonly vintfs: number;
  readonly sids: number;
  /** VCMDQs of a VINTF when all are split evenly. */
  readonly lvcmdqs: number;
}

/** Counts of a parameter set. @throws RangeError for one that the registers cannot hold */
export function cmdqvCounts(param: CmdqvParam): CmdqvCounts {
  const { NUM_VCMDQ_LOG2, NUM_VINTF_LOG2, NUM_SID_PER_VM_LOG2 } = param;
  // Refuses what does not fit its field.
  CMDQV_PARAM.value({ ...param });
  const limits: readonly (readonly [string, number, number])[] = [
    ['VCMDQs', NUM_VCMDQ_LOG2, CMDQV_MAX_VCMDQS],
    ['VINTFs', NUM_VINTF_LOG2, CMDQV_MAX_VINTFS],
    ['StreamID pairs', NUM_SID_PER_VM_LOG2, CMDQV_MAX_SIDS],
  ];
  for (const [what, log2, max] of limits)
    if (2 ** log2 > max) throw new RangeError(`CMDQV: 2^${log2} ${what}, at most ${max}`);
  if (NUM_VCMDQ_LOG2 < NUM_VINTF_LOG2)
    throw new RangeError(`CMDQV: 2^${NUM_VCMDQ_LOG2} VCMDQs cannot serve 2^${NUM_VINTF_LOG2} VINTFs`);
  return {
    vcmdqs: 2 ** NUM_VCMDQ_LOG2,
    vintfs: 2 ** NUM_VINTF_LOG2,
    sids: 2 ** NUM_SID_PER_VM_LOG2,
    lvcmdqs: 2 ** (NUM_VCMDQ_LOG2 - NUM_VINTF_LOG2),
  };
}
