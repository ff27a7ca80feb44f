/** What has to happen before SMMUEN is set, and what must not while it is (rules CFG-16, CFG-18, CFG-19, CFG-21). */
import { CR0, CR1, CR2, GBPA, STRTAB_BASE, STRTAB_BASE_CFG } from '../../spec/index.ts';
import { type Context, hex } from './context.ts';
import type { Flush } from './flush.ts';
import type { SmmuView } from './streams.ts';

const SMMUEN = CR0.bit('SMMUEN');
const E2H = CR2.bit('E2H');
const TABLE_BITS = CR1.bit('TABLE_SH', 'TABLE_OC', 'TABLE_IC');
const ABORT = GBPA.bit('ABORT');

/** See the module comment. */
export class Boot {
  readonly #context: Context;
  readonly #smmu: SmmuView;
  /** When CFGI_ALL completed, and was consumed, since reset or takeover; -1: not. */
  #cfgiAll = -1;
  #cfgiAllConsumed = -1;
  #nsnh = false;
  #el2 = false;
  /** A Stream table register changed since the last CFGI_ALL. */
  #tableChanged = false;
  #wasEnabled: boolean;
  #e2hChanged = false;
  #cr1: number;
  #cr2 = 0;

  constructor(context: Context, smmu: SmmuView) {
    this.#context = context;
    this.#smmu = smmu;
    this.#wasEnabled = smmu.regs.SMMUEN;
    this.#cr1 = smmu.regs.CR1;
    this.#cr2 = smmu.regs.E2H ? E2H : 0;
  }

  /** CFGI_ALL completed. */
  cfgiAll(consumed: number): void {
    this.#cfgiAll = this.#context.clock.now;
    this.#cfgiAllConsumed = consumed;
    this.#tableChanged = false;
    this.#nsnh = this.#el2 = false;
  }

  /** A TLBI that was consumed at `consumed` has completed. */
  flushed(flush: Flush, consumed: number): void {
    if (flush.scope === 'el2-all') this.#e2hChanged = false;
    const strict = this.#context.ordering('CFG-19') === 'strict';
    if (this.#cfgiAll < 0 || consumed < (strict ? this.#cfgiAll : this.#cfgiAllConsumed)) return;
    if (flush.scope === 'nsnh-all') this.#nsnh = true;
    if (flush.scope === 'el2-all') this.#el2 = true;
  }

  /** A register was written; `ignored`: why it had no effect. */
  written(offset: number, lo: number, ignored: string): void {
    const on = this.#smmu.regs.SMMUEN;
    if (offset === STRTAB_BASE.offset || offset === STRTAB_BASE.offset + 4 || offset === STRTAB_BASE_CFG.offset) {
      if (on)
        this.#report('CFG-18', `Stream table register ${hex(offset)} was written while SMMUEN=1${refused(ignored)}`);
      else this.#tableChanged = true;
    }
    if (offset === CR1.offset) {
      if (on && ((lo ^ this.#cr1) & TABLE_BITS) !== 0)
        this.#report('CFG-18', `table attributes of CR1 were changed while SMMUEN=1${refused(ignored)}`);
      this.#cr1 = this.#smmu.regs.CR1;
    }
    if (offset === CR2.offset) {
      if (ignored === '' && ((lo ^ this.#cr2) & E2H) !== 0) this.#e2hChanged = this.#wasEnabled;
      this.#cr2 = lo;
    }
  }

  /** An STE or a CD changed while SMMUEN was 0: what is cached of it goes with the CFGI_ALL before SMMUEN. */
  changedWhileOff(): void {
    this.#tableChanged = true;
  }

  /** CR0 took effect. */
  updated(before: number, after: number): void {
    if (((before ^ after) & SMMUEN) === 0) return;
    if ((after & SMMUEN) !== 0) this.#enabled();
    else if ((this.#smmu.regs.GBPA & ABORT) === 0 && this.#wasEnabled)
      this.#context.history.text(this.#smmu.name, 'SMMUEN=0 with GBPA.ABORT=0: everything passes', {});
  }

  #enabled(): void {
    const { Hyp } = this.#smmu.caps;
    if (this.#cfgiAll < 0) this.#report('CFG-19', 'SMMUEN was set and no CMD_CFGI_ALL has completed');
    else if (this.#wasEnabled && this.#tableChanged)
      this.#report('CFG-18', 'the Stream table was changed and SMMUEN set without a CMD_CFGI_ALL between');
    else if (!this.#nsnh || (Hyp && !this.#el2))
      this.#report(
        'CFG-19',
        `SMMUEN was set and no ${this.#nsnh ? 'CMD_TLBI_EL2_ALL' : 'CMD_TLBI_NSNH_ALL'} has completed after the CMD_CFGI_ALL`,
      );
    else if (Hyp && this.#e2hChanged)
      this.#report('CFG-16', 'CR2.E2H was changed and no CMD_TLBI_EL2_ALL has completed');
    this.#wasEnabled = true;
    this.#tableChanged = false;
  }

  /** Another driver takes over: what the last one invalidated does not count. */
  takeover(): void {
    this.#cfgiAll = -1;
    this.#nsnh = this.#el2 = false;
  }

  #report(rule: string, what: string): void {
    this.#context.report(rule, `${this.#smmu.name}: ${what}`, { smmu: this.#smmu.name });
  }
}

const refused = (ignored: string): string => (ignored === '' ? '' : ` (the write was ignored: ${ignored})`);
