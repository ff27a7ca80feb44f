/** A register whose fields take effect some time after the write, shown in an acknowledge register (6.3.9). */
import type { Register } from '../../spec/layout.ts';
import type { SmmuOptions } from './config.ts';
import type { Watch } from './observer.ts';
import type { RegisterFile } from './registers.ts';
import type { Agent } from './schedule.ts';

/** Called when a field has taken effect; `ack` already holds the new value. */
export type Updated = (field: string, before: number, after: number) => void;

interface FieldMask {
  readonly name: string;
  readonly mask: number;
}

/** CR0 with CR0ACK, IRQ_CTRL with IRQ_CTRLACK. Fields update one by one, independently of each other. */
export class Handshake implements Agent {
  readonly name: string;
  /** The value written: what reads return at once. */
  request = 0;
  /** The value in force. */
  ack = 0;
  readonly #register: Register;
  readonly #fields: readonly FieldMask[];
  readonly #rewrite: SmmuOptions['handshakeRewrite'];
  readonly #smmu: string;
  readonly #watch: Watch;
  readonly #updated: Updated;

  constructor(smmu: string, file: RegisterFile, request: Register, ack: Register, watch: Watch, updated: Updated) {
    this.#smmu = smmu;
    this.name = `${smmu}.${request.name.toLowerCase()}`;
    this.#register = request;
    this.#rewrite = file.options.handshakeRewrite;
    this.#watch = watch;
    this.#updated = updated;
    const { writableLo } = file.attach(request, { read: () => this.request, write: (value) => this.#write(value) });
    file.attach(ack, { read: () => this.ack });
    this.#fields = request.names
      .map((name) => ({ name, mask: request.bit(name) }))
      .filter(({ mask }) => (mask & writableLo) !== 0);
  }

  /** A bit counts as off only when neither register holds it (6.3.9). */
  off(bit: number): boolean {
    return ((this.request | this.ack) & bit) === 0;
  }

  /** A field that is still in transition keeps the first new value, or goes back if that is what is written (6.3.9). */
  #write(value: number): string {
    let ignored = '';
    for (const { mask } of this.#fields) {
      const wanted = value & mask;
      const moving = ((this.request ^ this.ack) & mask) !== 0;
      const back = this.#rewrite === 'cease-if-reverted' && wanted === (this.ack & mask);
      if (!moving || back) this.request = ((this.request & ~mask) | wanted) >>> 0;
      else if (wanted !== (this.request & mask)) ignored = 'update in progress';
    }
    return ignored;
  }

  /** Both registers to 0, as after a reset: every field that was in force goes, at once. */
  reset(): void {
    this.request = 0;
    while (this.ready) this.act();
  }

  get ready(): boolean {
    return this.request !== this.ack;
  }

  /** Completes the update of one field. */
  act(): void {
    for (const { name, mask } of this.#fields)
      if (((this.request ^ this.ack) & mask) !== 0) {
        const before = this.ack;
        this.ack = ((this.ack & ~mask) | (this.request & mask)) >>> 0;
        this.#updated(name, this.#register.of(before, name), this.#register.of(this.ack, name));
        const register = this.#register.name === 'CR0' ? 'CR0' : 'IRQ_CTRL';
        this.#watch.observer?.({ kind: 'update', smmu: this.#smmu, register, before, after: this.ack });
        return;
      }
  }
}
