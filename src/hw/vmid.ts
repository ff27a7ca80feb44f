/**
 * The VMID space of one SMMU. Standalone: the driver makes one allocator for each SMMU it probes, the hardware uses
 * only the width.
 */

/** Why an allocator refused. */
export type VmidErrorCode = 'exhausted' | 'double-free' | 'foreign-free';

/** A refused {@link VmidAllocator.alloc} or {@link VmidAllocator.free}. */
export class VmidError extends Error {
  override readonly name = 'VmidError';
  readonly code: VmidErrorCode;
  /** The VMID in question; -1 when exhausted. */
  readonly vmid: number;
  constructor(code: VmidErrorCode, vmid: number, why: string) {
    super(why);
    this.code = code;
    this.vmid = vmid;
  }
}

/** Lowest VMID handed out: 0 is kept for streams without stage 2 of their own (stage 1 only, bypass). */
export const VMID_MIN = 1;

/**
 * Highest VMID of an SMMU, from IDR0.VMID16 (IHI 0070 6.3.1).
 * @param VMID16 the field: 1 for 16-bit VMIDs, 0 for 8-bit ones
 */
export const vmidMax = (VMID16: number | bigint): number => 2 ** (Number(VMID16) === 0 ? 8 : 16) - 1;

/**
 * Hands out VMIDs, lowest free first, and remembers who has each. No policy: when a VMID may be freed is the caller's
 * business.
 */
export class VmidAllocator {
  /** Lowest and highest VMID, both included. */
  readonly min: number;
  readonly max: number;
  readonly #owners = new Map<number, string>();
  /** Nothing below it is free. */
  #hint: number;

  /**
   * @param max highest VMID, as {@link vmidMax} says
   * @throws RangeError for an empty or unreasonable range
   */
  constructor(max: number, min: number = VMID_MIN) {
    if (!Number.isInteger(min) || !Number.isInteger(max) || min < 0 || max < min || max > vmidMax(1))
      throw new RangeError(`VMID range ${min}..${max}: expected 0 <= min <= max <= ${vmidMax(1)}`);
    this.min = min;
    this.max = max;
    this.#hint = min;
  }

  /**
   * The lowest free VMID, from now on owned by `owner`.
   * @throws VmidError 'exhausted'
   */
  alloc(owner: string): number {
    let vmid = this.#hint;
    while (this.#owners.has(vmid)) vmid++;
    if (vmid > this.max)
      throw new VmidError('exhausted', -1, `all ${this.max - this.min + 1} VMIDs (${this.min}..${this.max}) are taken`);
    this.#owners.set(vmid, owner);
    this.#hint = vmid + 1;
    return vmid;
  }

  /**
   * Gives a VMID back.
   * @throws VmidError 'double-free' if nobody has it (or it is outside the range), 'foreign-free' if another owner has
   */
  free(vmid: number, owner: string): void {
    const holder = this.#owners.get(vmid);
    if (holder === undefined) throw new VmidError('double-free', vmid, `VMID ${vmid} is not allocated`);
    if (holder !== owner)
      throw new VmidError('foreign-free', vmid, `VMID ${vmid} belongs to ${holder}, ${owner} cannot free it`);
    this.#owners.delete(vmid);
    if (vmid < this.#hint) this.#hint = vmid;
  }

  /** Who has a VMID; undefined: it is free. */
  ownerOf(vmid: number): string | undefined {
    return this.#owners.get(vmid);
  }

  /** Number of VMIDs taken. */
  get used(): number {
    return this.#owners.size;
  }

  /** VMIDs taken, ascending. */
  get taken(): number[] {
    return [...this.#owners.keys()].sort((a, b) => a - b);
  }
}

/** Something in hardware, or in memory that hardware reads, that names a VMID. */
export interface VmidHolder {
  readonly kind: 'ste' | 'cached-ste' | 'cached-vms' | 'tlb' | 'walk-cache' | 'vintf' | 'command';
  /** Which one: a StreamID for STEs, an entry's tag, an index in a queue, a VINTF's number. */
  readonly what: string;
}
