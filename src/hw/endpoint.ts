/** A device that does DMA through an SMMU. */
import type { AtsUnit } from './ats.ts';
import { Dma, type DmaContext, type DmaOptions, type DmaResult } from './dma.ts';

/** Longest access that one call makes, in bytes. */
export const MAX_DMA = 1 << 24;

/** See the module comment. */
export class Endpoint {
  readonly name: string;
  readonly streamIds: readonly number[];
  /** ATS and PRI; null for a device without. */
  readonly ats: AtsUnit | null;
  readonly #context: DmaContext;

  /** @throws RangeError without a StreamID */
  constructor(streamIds: readonly number[], context: DmaContext) {
    if (streamIds.length === 0) throw new RangeError(`endpoint ${context.name} has no StreamID`);
    this.name = context.name;
    this.streamIds = streamIds;
    this.ats = context.ats;
    this.#context = context;
  }

  /**
   * Reads `length` bytes at an input address.
   * @throws RangeError for an address outside 64 bits, a length outside 0..{@link MAX_DMA}, an unknown stream
   */
  read(iova: bigint, length: number, options: DmaOptions = {}): DmaResult {
    checkLength(length);
    return this.#start(iova, new Uint8Array(length), false, options);
  }

  /** Writes bytes at an input address. @throws RangeError as {@link read} */
  write(iova: bigint, bytes: Uint8Array, options: DmaOptions = {}): DmaResult {
    checkLength(bytes.length);
    return this.#start(iova, new Uint8Array(bytes), true, options);
  }

  #start(iova: bigint, data: Uint8Array, isWrite: boolean, options: DmaOptions): DmaResult {
    if (iova < 0n || iova >> 64n !== 0n) throw new RangeError(`IOVA 0x${iova.toString(16)} is outside 64 bits`);
    const ssid = options.SubstreamID ?? 0;
    if (!Number.isInteger(ssid) || ssid < 0 || ssid >= 2 ** 20)
      throw new RangeError(`SubstreamID ${ssid} is outside 20 bits`);
    const result = new Dma(this.#context, this.#stream(options.stream ?? 0), iova, data, isWrite, options).run();
    this.#context.moment();
    return result;
  }

  #stream(index: number): number {
    const StreamID = this.streamIds[index];
    if (StreamID === undefined)
      throw new RangeError(`${this.name} has ${this.streamIds.length} StreamIDs; ${index} is none`);
    return StreamID;
  }
}

function checkLength(length: number): void {
  if (!Number.isInteger(length) || length < 0 || length > MAX_DMA)
    throw new RangeError(`a DMA of ${length} bytes; expected 0..${MAX_DMA}`);
}
