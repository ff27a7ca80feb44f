/** The queues that hardware fills, as the driver reads them: Event queue and PRI queue (kernel: `struct arm_smmu_queue`). */
import { EVENTQ_CONS, EVENTQ_PROD, type Words } from '../../../spec/index.ts';
import type { Pa } from '../../hw/bus.ts';
import type { Kernel } from '../kernel.ts';

/** What a queue is made of. */
export interface HardwareQueueSetup {
  /** For point names: evtq, priq. */
  readonly name: string;
  readonly base: Pa;
  /** log2 of the number of entries. */
  readonly log2size: number;
  readonly entryBytes: number;
  readonly prodReg: Pa;
  readonly consReg: Pa;
}

// PRIQ_PROD and PRIQ_CONS have the same fields.
const OVFLG = EVENTQ_PROD.bit('OVFLG');

/** See the module comment. */
export class HardwareQueue {
  readonly setup: HardwareQueueSetup;
  readonly #kernel: Kernel;
  readonly #mask: number;
  #prod = 0;
  #cons = 0;
  #overflow = 0;

  constructor(kernel: Kernel, setup: HardwareQueueSetup) {
    this.#kernel = kernel;
    this.setup = setup;
    this.#mask = 2 ** (setup.log2size + 1) - 1;
  }

  /** Both indexes back to 0, as the registers after a reset. */
  restart(): void {
    this.#prod = 0;
    this.#cons = 0;
    this.#overflow = 0;
  }

  /** Reads PROD (`queue_sync_prod_in`). True: an overflow happened since the last look. */
  readProd(): boolean {
    const prod = this.#kernel.read32(`${this.setup.name}:prod`, this.setup.prodReg);
    const overflowed = (prod & OVFLG) !== (this.#overflow & OVFLG);
    this.#prod = EVENTQ_PROD.of(prod, 'WR') & this.#mask;
    this.#overflow = prod & OVFLG;
    return overflowed;
  }

  /** The next record by the last PROD read, its place given back to hardware (`queue_remove_raw`). */
  take(): Words | undefined {
    if (this.#prod === this.#cons) return undefined;
    const { setup } = this;
    // Entries are read after the index that says they are there.
    this.#kernel.dmaRmb(`${setup.name}:entry`);
    const at = setup.base + BigInt((this.#cons & (this.#mask >>> 1)) * setup.entryBytes);
    const bytes = this.#kernel.bus.loadBytes(at, setup.entryBytes);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const words = new Uint32Array(setup.entryBytes / 4).map((_, i) => view.getUint32(4 * i, true));
    this.#cons = (this.#cons + 1) & this.#mask;
    // The copy is finished before hardware may write the place again.
    this.#kernel.mb(`${setup.name}:free`);
    this.#writeCons();
    return words;
  }

  /** Acknowledges an overflow (`queue_sync_cons_ovf`). */
  acknowledgeOverflow(): void {
    this.#writeCons();
  }

  #writeCons(): void {
    const value = (EVENTQ_CONS.value({ RD: this.#cons }) | this.#overflow) >>> 0;
    this.#kernel.write32Relaxed(`${this.setup.name}:cons`, this.setup.consReg, value);
  }
}
