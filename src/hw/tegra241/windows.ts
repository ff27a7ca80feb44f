/** The windows of a CMDQV: which register answers at which offset. Global and logical windows show the same registers. */
import {
  CMDQV_PAGE_BYTES,
  CMDQV_VCMDQ_PAGE0,
  VCMDQ_STRIDE,
  VINTF_BLOCK_STRIDE,
  vintfBlock,
  vintfPage0,
} from '../../../spec/tegra241.ts';
import type { CmdqvContext, Ignored } from './context.ts';
import type { Vcmdq } from './vcmdq.ts';
import type { Vintf } from './vintf.ts';

/** The registers of the CONFIG page outside the VINTFs' blocks. */
export interface RegisterBlock {
  /** undefined: nothing there. */
  readGlobal(offset: number): number | undefined;
  writeGlobal(offset: number, value: number): Ignored;
}

/** Where an offset leads. */
type Place =
  | { readonly kind: 'global'; readonly offset: number }
  | { readonly kind: 'vintf'; readonly vintf: Vintf; readonly offset: number }
  | {
      readonly kind: 'vcmdq';
      readonly page: 0 | 1;
      readonly queue: Vcmdq;
      readonly offset: number;
      readonly logical: boolean;
    }
  /** A slot of a logical window that no VCMDQ is mapped to, or of a global window that is blocked. */
  | { readonly kind: 'empty'; readonly what: string; readonly abort: boolean }
  | { readonly kind: 'nothing' };

const NOTHING: Place = { kind: 'nothing' };
const ALL_ONES = 0xffffffff;
const FIRST_WINDOW = vintfPage0(0) / CMDQV_PAGE_BYTES;
const GLOBAL_PAGE0 = CMDQV_VCMDQ_PAGE0 / CMDQV_PAGE_BYTES;

/** See the module comment. */
export class Windows {
  readonly #context: CmdqvContext;
  readonly #queues: readonly Vcmdq[];
  readonly #vintfs: readonly Vintf[];
  readonly #block: RegisterBlock;

  constructor(context: CmdqvContext, queues: readonly Vcmdq[], vintfs: readonly Vintf[], block: RegisterBlock) {
    this.#context = context;
    this.#queues = queues;
    this.#vintfs = vintfs;
    this.#block = block;
  }

  /** Reads 32 bits. Undefined or misaligned offsets read 0. */
  read32(offset: number): number {
    const value = this.#read(offset);
    this.#announce('cmdqv-read', offset, 4, 0, value, '');
    return value;
  }

  /** Reads 64 bits: a 64-bit register, or two of 32 bits. */
  read64(offset: number): bigint {
    const aligned = offset % 8 === 0;
    const lo = aligned ? this.#read(offset) : 0;
    const hi = aligned ? this.#read(offset + 4) : 0;
    this.#announce('cmdqv-read', offset, 8, hi, lo, '');
    return (BigInt(hi) << 32n) | BigInt(lo);
  }

  /** Writes 32 bits: a register, or half of one of 64 bits. */
  write32(offset: number, value: number): void {
    const ignored = this.#write(this.#place(offset), value);
    this.#announce('cmdqv-write', offset, 4, 0, value, ignored);
  }

  /** Writes 64 bits: page 1 registers only, others ignore it (QEMU). */
  write64(offset: number, value: bigint): void {
    const lo = Number(value & 0xffffffffn);
    const hi = Number((value >> 32n) & 0xffffffffn);
    const place = this.#place(offset);
    let ignored = 'misaligned';
    if (offset % 8 === 0)
      ignored = place.kind === 'vcmdq' && place.page === 1 ? this.#writeBoth(place, lo, hi) : this.#refuse64(place);
    this.#announce('cmdqv-write', offset, 8, hi, lo, ignored);
  }

  #writeBoth(place: Place & { kind: 'vcmdq' }, lo: number, hi: number): Ignored {
    // The half that holds LOG2SIZE last: the address is whole when it is looked at.
    const high = place.queue.write1(place.offset + 4, hi);
    return place.queue.write1(place.offset, lo) || high;
  }

  #refuse64(place: Place): Ignored {
    return place.kind === 'empty' ? this.#empty(place) : '64-bit write of 32-bit registers';
  }

  #place(offset: number): Place {
    if (offset % 4 !== 0) return NOTHING;
    const page = Math.floor(offset / CMDQV_PAGE_BYTES);
    const at = offset % CMDQV_PAGE_BYTES;
    if (page === 0) return this.#configPage(at);
    const slot = Math.floor(at / VCMDQ_STRIDE);
    const inSlot = at % VCMDQ_STRIDE;
    if (page < FIRST_WINDOW) return this.#globalSlot(page === GLOBAL_PAGE0 ? 0 : 1, slot, inSlot);
    const vintf = this.#vintfs[(page - FIRST_WINDOW) >> 1];
    return vintf === undefined ? NOTHING : this.#logicalSlot(vintf, ((page - FIRST_WINDOW) & 1) as 0 | 1, slot, inSlot);
  }

  #configPage(at: number): Place {
    if (at < vintfBlock(0)) return { kind: 'global', offset: at };
    const vintf = this.#vintfs[Math.floor((at - vintfBlock(0)) / VINTF_BLOCK_STRIDE)];
    return vintf === undefined ? NOTHING : { kind: 'vintf', vintf, offset: at % VINTF_BLOCK_STRIDE };
  }

  #globalSlot(page: 0 | 1, q: number, offset: number): Place {
    const queue = this.#queues[q];
    if (queue === undefined) return NOTHING;
    if (this.#context.options.globalWindow === 'blocked' && queue.owner !== null)
      return { kind: 'empty', what: `global window, mapped VCMDQ ${q}`, abort: false };
    return { kind: 'vcmdq', page, queue, offset, logical: false };
  }

  #logicalSlot(vintf: Vintf, page: 0 | 1, l: number, offset: number): Place {
    const queue = vintf.slots.get(l);
    if (queue !== undefined) return { kind: 'vcmdq', page, queue, offset, logical: true };
    const abort = this.#context.options.unmappedSlot === 'abort';
    return { kind: 'empty', what: `VINTF ${vintf.index}, LVCMDQ ${l}: no VCMDQ is mapped there`, abort };
  }

  #read(offset: number): number {
    const place = this.#place(offset);
    switch (place.kind) {
      case 'global':
        return this.#block.readGlobal(place.offset) ?? 0;
      case 'vintf':
        return place.vintf.read(place.offset) ?? 0;
      case 'vcmdq':
        return (place.page === 0 ? place.queue.read0(place.offset) : place.queue.read1(place.offset)) ?? 0;
      case 'empty':
        this.#empty(place);
        return place.abort ? ALL_ONES : 0;
      default:
        return 0;
    }
  }

  #write(place: Place, value: number): Ignored {
    switch (place.kind) {
      case 'global':
        return this.#block.writeGlobal(place.offset, value);
      case 'vintf':
        return place.vintf.write(place.offset, value);
      case 'vcmdq':
        if (place.page === 1) return place.queue.write1(place.offset, value);
        return place.queue.write0(place.offset, value, place.logical);
      case 'empty':
        return this.#empty(place);
      default:
        return 'undefined offset';
    }
  }

  /** An access that meets no queue is on record, but no broken rule: Linux's own reset makes some. */
  #empty({ what, abort }: Place & { kind: 'empty' }): Ignored {
    const { smmu, watch } = this.#context;
    watch.observer?.({ kind: 'cmdqv-unmapped', smmu, what });
    return abort ? 'aborted' : 'not mapped';
  }

  #announce(
    kind: 'cmdqv-read' | 'cmdqv-write',
    offset: number,
    size: number,
    hi: number,
    lo: number,
    ignored: Ignored,
  ) {
    const { smmu, watch } = this.#context;
    watch.observer?.({ kind, smmu, offset, size, hi, lo, ignored });
  }
}
