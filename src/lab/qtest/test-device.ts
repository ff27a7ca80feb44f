/** QEMU's `iommu-testdev`: a PCI function that writes a pattern through the SMMU and reads it back past it. */
import {
  ITD_ATTRIBUTES,
  ITD_ATTRIBUTES_RESET,
  ITD_DOORBELL,
  ITD_GPA_HI,
  ITD_GPA_LO,
  ITD_IOVA_HI,
  ITD_IOVA_LO,
  ITD_LENGTH,
  ITD_PATTERN,
  ITD_RESULT,
  ITD_RUN,
} from '../../../spec/iommu-testdev.ts';

const RESULT = ITD_RESULT.fields.Value.values;
/** The longest DMA that is carried out; a longer one fails as a write that nothing answers. */
const MAX_LENGTH = 1 << 24;

/** How the function reaches the machine. */
export interface TestDeviceHost {
  /** DMA write of the function's stream. False: not all of it went through. */
  dmaWrite(iova: bigint, bytes: Uint8Array): boolean;
  /** Physical memory, past the SMMU; undefined where nothing answers. */
  readPhysical(pa: bigint, length: number): Uint8Array | undefined;
}

/** The function's BAR0. Offsets are bytes, values 32 bits. */
export class TestDevice {
  readonly #host: TestDeviceHost;
  readonly #values = new Map<number, number>();
  #result: number = RESULT.IDLE;
  #armed = false;

  constructor(host: TestDeviceHost) {
    this.#host = host;
    this.#values.set(ITD_ATTRIBUTES.offset, ITD_ATTRIBUTES_RESET);
  }

  /** Reads a register; reading {@link ITD_RUN} runs the DMA. Offsets that are no register read 0. */
  read(offset: number): number {
    if (offset === ITD_RUN.offset) {
      this.#result = this.#run();
      return 0;
    }
    if (offset === ITD_RESULT.offset) return this.#result >>> 0;
    if (offset === ITD_DOORBELL.offset) return this.#armed ? ITD_DOORBELL.bit('Arm') : 0;
    return this.#get(offset);
  }

  /** Writes a register; read-only and unknown offsets ignore it. */
  write(offset: number, value: number): void {
    if (offset === ITD_DOORBELL.offset) {
      this.#armed = ITD_DOORBELL.of(value, 'Arm') === 1;
      this.#result = this.#armed ? RESULT.ARMED : RESULT.IDLE;
    } else if (WRITABLE.has(offset)) this.#values.set(offset, value >>> 0);
  }

  #get(offset: number): number {
    return this.#values.get(offset) ?? 0;
  }

  #pair(hi: number, lo: number): bigint {
    return (BigInt(this.#get(hi)) << 32n) | BigInt(this.#get(lo));
  }

  #run(): number {
    if (!this.#armed) return RESULT.NOT_ARMED;
    this.#armed = false;
    const length = this.#get(ITD_LENGTH.offset);
    if (length === 0) return RESULT.ZERO_LENGTH;
    if (!attributesAgree(this.#get(ITD_ATTRIBUTES.offset))) return RESULT.BAD_ATTRIBUTES;
    if (length > MAX_LENGTH) return RESULT.WRITE_FAILED;
    const bytes = pattern(length);
    if (!this.#host.dmaWrite(this.#pair(ITD_IOVA_HI.offset, ITD_IOVA_LO.offset), bytes)) return RESULT.WRITE_FAILED;
    const found = this.#host.readPhysical(this.#pair(ITD_GPA_HI.offset, ITD_GPA_LO.offset), length);
    if (found === undefined) return RESULT.READ_BACK_FAILED;
    return found.every((byte, i) => byte === bytes[i]) ? RESULT.SUCCESS : RESULT.READ_BACK_DIFFERS;
  }
}

const WRITABLE: ReadonlySet<number> = new Set(
  [ITD_IOVA_LO, ITD_IOVA_HI, ITD_LENGTH, ITD_ATTRIBUTES, ITD_GPA_LO, ITD_GPA_HI].map(({ offset }) => offset),
);

/** With a valid space, the secure bit must say the same. */
function attributesAgree(attributes: number): boolean {
  if (ITD_ATTRIBUTES.of(attributes, 'SpaceValid') === 0) return true;
  const { SECURE, NON_SECURE } = ITD_ATTRIBUTES.fields.Space.values;
  return ITD_ATTRIBUTES.of(attributes, 'Space') === (ITD_ATTRIBUTES.of(attributes, 'Secure') ? SECURE : NON_SECURE);
}

function pattern(length: number): Uint8Array {
  const word = new Uint8Array(ITD_PATTERN.buffer);
  return Uint8Array.from({ length }, (_, i) => word[i % word.length] ?? 0);
}
