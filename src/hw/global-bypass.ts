/** What happens to traffic while CR0.SMMUEN is 0 (IHI 0070 3.11, 6.3.14, 13.2). */
import type { Caps } from '../../spec/caps.ts';
import { GBPA } from '../../spec/registers.ts';
import { allocOf, pack, shOf, typeOf } from './attributes.ts';
import { configFault, F_BAD_ATS_TREQ, F_TRANSL_FORBIDDEN } from './faults.ts';
import { allocOverride, beyond } from './stream-table.ts';
import { Access, Outcome, type Transaction, type TranslationRegs } from './transaction.ts';

const ABORT = GBPA.slot('ABORT');
const MTCFG = GBPA.slot('MTCFG');
const MEMATTR = GBPA.slot('MemAttr');
const ALLOCCFG = GBPA.slot('ALLOCCFG');
const SHCFG = GBPA.slot('SHCFG');
const SHCFG_INCOMING = GBPA.fields.SHCFG.values.INCOMING;

const field = (value: number, { shift, mask }: typeof ABORT): number => (value >>> shift) & mask;

/** See the module comment. */
export class GlobalBypass {
  readonly #caps: Pick<Caps, 'OAS' | 'ATTR_TYPES_OVR'>;
  readonly #regs: TranslationRegs;

  constructor(caps: Pick<Caps, 'OAS' | 'ATTR_TYPES_OVR'>, regs: TranslationRegs) {
    this.#caps = caps;
    this.#regs = regs;
  }

  /** Ends the transaction: its address passes, or it is refused. */
  apply(t: Transaction): void {
    if (t.access === Access.TranslationRequest) {
      t.outcome = Outcome.AtsUr;
      configFault(t, F_BAD_ATS_TREQ);
      t.record = true;
      return;
    }
    t.outcome = Outcome.Abort;
    if (t.access === Access.Translated) {
      configFault(t, F_TRANSL_FORBIDDEN);
      t.record = true;
      return;
    }
    const gbpa = this.#regs.GBPA;
    if (field(gbpa, ABORT) !== 0 || beyond(t.addrHi, this.#caps.OAS)) return; // no event (3.4, 3.11)
    this.#pass(t, gbpa);
  }

  #pass(t: Transaction, gbpa: number): void {
    const types = this.#caps.ATTR_TYPES_OVR;
    const sh = field(gbpa, SHCFG);
    const alloc = types ? allocOverride(field(gbpa, ALLOCCFG)) : -1;
    const attributes = pack(
      types && field(gbpa, MTCFG) !== 0 ? field(gbpa, MEMATTR) : t.inMemAttr,
      types && sh !== SHCFG_INCOMING ? sh : t.inSH,
      alloc < 0 ? t.inAlloc : alloc,
    );
    t.outcome = Outcome.Ok;
    t.paHi = t.addrHi | 0;
    t.paLo = t.addrLo | 0;
    t.grantRead = t.grantWrite = t.grantExec = true;
    t.memAttr = typeOf(attributes);
    t.SH = shOf(attributes);
    t.alloc = allocOf(attributes);
  }
}
