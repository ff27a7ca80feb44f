/**
 * The VMID space of one SMMU. Standalone: the driver makes one allocator for each SMMU it probes, the hardware uses
 * only the width.
 */

/** Why an allocator refused. */
export type VmidErrorCode = 'exhausted' | 'double-free' | 'foreign-free' | 'taken';

/** A refused {@link VmidAllocator.alloc}, {@link VmidAllocator.reserve} or {@link VmidAllocator.free}. */
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

/** A word of 32 VMIDs that are all taken. */
const FULL = 0xffff_ffff;

/**
 * Hands out VMIDs, lowest free first, and remembers who has each. No policy: when a VMID may be freed is the caller's
 * business.
 */
export class VmidAllocator {
  /** Lowest and highest VMID, both included. */
  readonly min: number;
  readonly max: number;
  /** By VMID less {@link min}. */
  readonly #owners: (string | undefined)[] = [];
  /** A one for each VMID that is taken or out of range. */
  readonly #taken: Uint32Array;
  /** All words of {@link #taken} below are full. */
  #word = 0;
  #used = 0;

  /**
   * @param max highest VMID, as {@link vmidMax} says
   * @throws RangeError for an empty or unreasonable range
   */
  constructor(max: number, min: number = VMID_MIN) {
    if (!Number.isInteger(min) || !Number.isInteger(max) || min < 0 || max < min || max > vmidMax(1))
      throw new RangeError(`VMID range ${min}..${max}: expected 0 <= min <= max <= ${vmidMax(1)}`);
    this.min = min;
    this.max = max;
    this.#taken = new Uint32Array((max >>> 5) + 1);
    for (let vmid = 0; vmid < min; vmid++) this.#mark(vmid);
    for (let vmid = max + 1; vmid < 32 * this.#taken.length; vmid++) this.#mark(vmid);
  }

  /**
   * The lowest free VMID, from now on owned by `owner`.
   * @throws VmidError 'exhausted'
   */
  alloc(owner: string): number {
    while (this.#taken[this.#word] === FULL) this.#word++;
    const free = ~(this.#taken[this.#word] ?? FULL);
    if (free === 0)
      throw new VmidError('exhausted', -1, `all ${this.max - this.min + 1} VMIDs (${this.min}..${this.max}) are taken`);
    const vmid = 32 * this.#word + 31 - Math.clz32(free & -free);
    this.#mark(vmid);
    this.#owners[vmid - this.min] = owner;
    this.#used++;
    return vmid;
  }

  /**
   * Takes a VMID that is in use already, so that {@link alloc} does not give it out.
   * @throws RangeError outside the range; VmidError 'taken' if somebody has it
   */
  reserve(vmid: number, owner: string): void {
    if (!Number.isInteger(vmid) || vmid < this.min || vmid > this.max)
      throw new RangeError(`VMID ${vmid} is outside ${this.min}..${this.max}`);
    const holder = this.ownerOf(vmid);
    if (holder !== undefined) throw new VmidError('taken', vmid, `VMID ${vmid} belongs to ${holder}`);
    this.#mark(vmid);
    this.#owners[vmid - this.min] = owner;
    this.#used++;
  }

  #mark(vmid: number): void {
    this.#taken[vmid >>> 5] = (this.#taken[vmid >>> 5] ?? 0) | (1 << (vmid & 31));
  }

  /**
   * Gives a VMID back.
   * @throws VmidError 'double-free' if nobody has it (or it is outside the range), 'foreign-free' if another owner has
   */
  free(vmid: number, owner: string): void {
    const holder = this.ownerOf(vmid);
    if (holder === undefined) throw new VmidError('double-free', vmid, `VMID ${vmid} is not allocated`);
    if (holder !== owner)
      throw new VmidError('foreign-free', vmid, `VMID ${vmid} belongs to ${holder}, ${owner} cannot free it`);
    this.#owners[vmid - this.min] = undefined;
    this.#used--;
    const word = vmid >>> 5;
    this.#taken[word] = (this.#taken[word] ?? 0) & ~(1 << (vmid & 31));
    if (word < this.#word) this.#word = word;
  }

  /** Who has a VMID; undefined: it is free. */
  ownerOf(vmid: number): string | undefined {
    return this.#owners[vmid - this.min];
  }

  /** Number of VMIDs taken. */
  get used(): number {
    return this.#used;
  }

  /** VMIDs taken, ascending. */
  get taken(): number[] {
    const out: number[] = [];
    for (const [i, owner] of this.#owners.entries()) if (owner !== undefined) out.push(this.min + i);
    return out;
  }
}

/** Something in hardware, or in memory that hardware reads, that names a VMID. */
export interface VmidHolder {
  readonly kind: 'ste' | 'cached-ste' | 'cached-vms' | 'tlb' | 'walk-cache' | 'vintf' | 'command';
  /** Which one: a StreamID for STEs, an entry's tag, an index in a queue, a VINTF's number. */
  readonly what: string;
}
