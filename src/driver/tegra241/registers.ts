/** A CMDQV's registers as the driver reaches them: addresses, and EN written with STATUS awaited. */
import {
  CMDQV_CONFIG,
  CMDQV_STATUS,
  CMDQV_VCMDQ_PAGE0,
  type Register,
  VCMDQ_CONFIG,
  VCMDQ_STATUS,
  VCMDQ_STRIDE,
  VINTF_CONFIG,
  VINTF_STATUS,
  vintfBlock,
  vintfPage0,
  vintfPage1,
} from '../../../spec/index.ts';
import type { Pa } from '../../hw/bus.ts';
import type { Kernel } from '../kernel.ts';

/** EN bits and the STATUS bits that follow them. */
const UNITS = {
  cmdqv: { en: CMDQV_CONFIG.bit('CMDQV_EN'), enabled: CMDQV_STATUS.bit('CMDQV_ENABLED') },
  vintf: { en: VINTF_CONFIG.bit('EN'), enabled: VINTF_STATUS.bit('ENABLED') },
  vcmdq: { en: VCMDQ_CONFIG.bit('CMDQ_EN'), enabled: VCMDQ_STATUS.bit('ENABLED') },
} as const;

/** What has an EN. */
export type Unit = keyof typeof UNITS;

const copyOffset = (register: Register, copy: number): number =>
  register.offset + copy * (register.info.repeat?.stride ?? 0);

/** See the module comment. */
export class CmdqvRegisters {
  readonly kernel: Kernel;
  readonly base: Pa;

  constructor(kernel: Kernel, base: Pa) {
    this.kernel = kernel;
    this.base = base;
  }

  /** Address of a register of the CONFIG page; `copy` of one that repeats. */
  global(register: Register, copy = 0): Pa {
    return this.base + BigInt(copyOffset(register, copy));
  }

  /** Address of a register of VINTF v. */
  vintf(v: number, register: Register, copy = 0): Pa {
    return this.base + BigInt(vintfBlock(v) + copyOffset(register, copy));
  }

  /** Address of a register of LVCMDQ l, in the logical windows of VINTF v. */
  lvcmdq(v: number, l: number, register: Register): Pa {
    const page = register.page === VCMDQ_CONFIG.page ? vintfPage0(v) : vintfPage1(v);
    return this.base + BigInt(page + l * VCMDQ_STRIDE + register.offset);
  }

  /** Address of a page 0 register of VCMDQ q, in the global window. */
  vcmdq(q: number, register: Register): Pa {
    return this.base + BigInt(CMDQV_VCMDQ_PAGE0 + q * VCMDQ_STRIDE + register.offset);
  }

  read32(register: Register, at: Pa): number {
    return this.kernel.read32(`cmdqv:${register.name}`, at);
  }

  read64(register: Register, at: Pa): bigint {
    return this.kernel.read64(`cmdqv:${register.name}`, at);
  }

  /** Ordered after earlier stores. */
  write32(register: Register, at: Pa, value: number): void {
    this.kernel.write32(`cmdqv:${register.name}`, at, value >>> 0);
  }

  write32Relaxed(register: Register, at: Pa, value: number): void {
    this.kernel.write32Relaxed(`cmdqv:${register.name}`, at, value >>> 0);
  }

  write64Relaxed(register: Register, at: Pa, value: bigint): void {
    this.kernel.write64Relaxed(`cmdqv:${register.name}`, at, value);
  }

  /**
   * Writes a CONFIG and waits until STATUS says what its EN says (`tegra241_cmdqv_write_config`). False: timed out.
   * @param what for the log
   */
  configure(unit: Unit, what: string, config: Place, status: Place, value: number): boolean {
    const { en, enabled } = UNITS[unit];
    const wanted = (value & en) !== 0;
    this.write32(config.register, config.at, value);
    const done = this.kernel.poll(`cmdqv:${status.register.name}`, () => {
      return ((this.read32(status.register, status.at) & enabled) !== 0) === wanted;
    });
    if (!done) this.kernel.log('err', `${what}: failed to ${wanted ? 'en' : 'dis'}able`);
    return done;
  }
}

/** A register and where it is. */
export interface Place {
  readonly register: Register;
  readonly at: Pa;
}
