/**
 * A kernel that takes over from another one adopts the Stream tables that hardware uses, if they are sound: streams whose
 * device nobody has claimed go on as they did, and while their STE names a VMID, or a CD of theirs an ASID, nobody is
 * given it. A table that something has damaged is not adopted.
 */
import { CD, STE, type Words } from '../../../spec/index.ts';
import { INHERITED } from '../../driver/arm-smmu-v3/index.ts';
import { Mappings } from '../mappings.ts';
import type { Operation, OperationResult } from '../operation.ts';
import type { Monitor, Property, Violation, Watched } from '../property.ts';
import { forEachTranslatingSte } from '../stes.ts';

const RULE = 'adopted-kept';
const { S1_TRANS, S2_TRANS, NESTED } = STE.fields.Config.values;

/** A stream of the kernel before. */
interface OldStream {
  readonly smmu: string;
  readonly sid: number;
  readonly ste: Words;
  /** 0: stage 2 is off. */
  readonly vmid: number;
  readonly asids: readonly number[];
}

type Kexec = Extract<Operation, { op: 'kexec' }>;

const same = (a: Words, b: Words): boolean => a.every((word, i) => word === b[i]);

class AdoptedKept implements Monitor {
  readonly #watched: Watched;
  readonly #mappings: Mappings;
  /** What mattered when the last kernel came. */
  #streams: OldStream[] = [];
  /** What reads of unclaimed devices gave then, by page. */
  #reads = new Map<string, ReadonlyMap<number, { readonly vm: number; readonly page: number }>>();
  #tables = new Map<string, string>();
  #broken: Violation | null = null;

  constructor(watched: Watched) {
    this.#watched = watched;
    this.#mappings = new Mappings(watched.lab.guests.length);
    watched.lab.kernel.onNote(({ what, act, id }) => {
      if (what === 'asid' && act === 'alloc') this.#asidGiven(Number(id));
    });
  }

  before(o: Operation): void {
    if (o.op !== 'kexec') return;
    const kept = this.#live();
    this.#streams = [];
    this.#tables.clear();
    const { lab, model } = this.#watched;
    for (const smmu of lab.machine.smmus) {
      if (!model.adopts(o, smmu.name)) continue;
      this.#tables.set(smmu.name, this.#table(smmu.name));
      const before = kept.filter((one) => one.smmu === smmu.name);
      forEachTranslatingSte(lab.machine.memory, smmu, (sid, ste) => {
        this.#streams.push(before.find((one) => one.sid === sid) ?? this.#stream(smmu.name, sid, ste.slice()));
      });
    }
    const reads = new Map<string, ReadonlyMap<number, { readonly vm: number; readonly page: number }>>();
    for (const { name, smmu } of lab.devices) {
      if (!model.adopts(o, smmu)) continue;
      const old = this.#reads.get(name);
      const ioas = model.ioasOf(name);
      const pages = ioas === null || !model.reachesDirectly(name) ? undefined : this.#mappings.of(ioas);
      const doubtful = ioas === null ? 0 : this.#mappings.doubtful(ioas).size;
      if (old !== undefined && !lab.device(name).vfio.bound) reads.set(name, old);
      else if (pages !== undefined && doubtful === 0) reads.set(name, new Map(pages));
    }
    this.#reads = reads;
  }

  #stream(smmu: string, sid: number, ste: Words): OldStream {
    const config = STE.num(ste, 'Config');
    const vmid = config === S2_TRANS || config === NESTED ? STE.num(ste, 'S2VMID') : 0;
    return { smmu, sid, ste, vmid, asids: config === S1_TRANS ? this.#asids(ste) : [] };
  }

  /** ASIDs of the first CDs of a linear table: more a lab does not have. */
  #asids(ste: Words): number[] {
    const { memory } = this.#watched.lab.machine;
    const base = STE.address(ste, 'S1ContextPtr');
    const log2 = Math.min(STE.num(ste, 'S1CDMax'), 5);
    const out: number[] = [];
    if (STE.num(ste, 'S1Fmt') !== 0 && log2 > 0) return out;
    for (let i = 0; i < 2 ** log2; i++) {
      const word = memory.read64(base + BigInt(i * CD.bytes));
      const head = Uint32Array.of(Number(word & 0xffff_ffffn), Number(word >> 32n));
      if (CD.get(head, 'V') === 1n) out.push(Number(CD.get(head, 'ASID')));
    }
    return out;
  }

  #table(smmu: string): string {
    const { SMMUEN, strtabHi, strtabLo } = this.#watched.lab.machine.smmu(smmu).regs;
    return `${SMMUEN ? 'on' : 'off'} ${strtabHi} ${strtabLo}`;
  }

  /** Streams that still have the STE of the kernel before. */
  #live(): OldStream[] {
    if (this.#streams.length === 0) return [];
    const { lab } = this.#watched;
    return this.#streams.filter(({ smmu, sid, ste }) =>
      lab.streams.of(lab.machine.smmu(smmu)).some((now) => now.sid === sid && same(now.ste, ste)),
    );
  }

  #asidGiven(asid: number): void {
    const holder = this.#live().find(({ asids }) => asids.includes(asid));
    if (holder === undefined) return;
    const where = `${holder.smmu}: a CD of StreamID 0x${holder.sid.toString(16)}`;
    this.#broken ??= {
      rule: RULE,
      message: `${where}, which nobody has claimed, names ASID ${asid}, and it is given out`,
    };
  }

  after(o: Operation, result: OperationResult): Violation | null {
    if (o.op === 'kexec' && result.status === 'ok') this.#broken ??= this.#adopted(o);
    const read = o.op === 'dma' ? this.#dma(o, result) : null;
    this.#mappings.apply(o, result);
    if (o.op === 'bind' && result.status === 'ok') this.#reads.delete(o.dev);
    if (o.op === 'smmuSuspend' || o.op === 'smmuReset' || o.op === 'smmuUnplug' || o.op === 'atcHang')
      this.#reads.clear();
    return this.#broken ?? read ?? this.#numbers();
  }

  #adopted(o: Kexec): Violation | null {
    const { lab, model } = this.#watched;
    for (const { name } of lab.machine.smmus) {
      const before = this.#tables.get(name);
      if (before !== undefined && before !== this.#table(name))
        return { rule: RULE, message: `${name} was on with a sound Stream table, which was not adopted` };
      const damaged = o.damage !== undefined && o.how !== 'orderly' && lab.device(o.damage.dev).smmu === name;
      if (damaged && model.offOf(name) === undefined && (lab.driver?.smmu(name).inherited.table ?? null) !== null)
        return { rule: RULE, message: `the Stream table of ${name} is damaged, and was adopted all the same` };
    }
    return null;
  }

  #numbers(): Violation | null {
    const { ledger, streams, machine } = this.#watched.lab;
    for (const { smmu, sid, vmid } of this.#live()) {
      if (vmid === 0) continue;
      const where = `${smmu}: the STE of StreamID 0x${sid.toString(16)}, which nobody has claimed, names VMID ${vmid}`;
      const owners = [...ledger.ownersOf(smmu, vmid)];
      if (owners.some((owner) => owner !== INHERITED))
        return { rule: RULE, message: `${where}; ${owners.join(' and ')} was given it` };
      if (owners.length === 0) return { rule: RULE, message: `${where}; it is free` };
      const other = streams
        .of(machine.smmu(smmu))
        .find((now) => STE.num(now.ste, 'S2VMID') === vmid && !this.#streams.some((old) => old.sid === now.sid));
      if (other !== undefined)
        return { rule: RULE, message: `${where}; so does the new STE of StreamID 0x${other.sid.toString(16)}` };
    }
    return null;
  }

  /** A device that nobody has claimed reads what it read before. */
  #dma(o: Extract<Operation, { op: 'dma' }>, result: OperationResult): Violation | null {
    const { lab } = this.#watched;
    const pages = this.#reads.get(o.dev);
    if (lab.boots === 0 || pages === undefined || result.status !== 'ok') return null;
    const { write, ats, pasid, stream, page } = o;
    if (write === true || ats === true || pasid !== undefined || stream !== undefined) return null;
    const wanted = pages.get(page);
    const { dma } = result;
    if (wanted?.page === dma?.page && wanted?.vm === dma?.vm && (wanted === undefined || dma?.old === true))
      return null;
    const expected = wanted === undefined ? 'abort' : `page ${wanted.page} of the old vm${wanted.vm}`;
    const got = dma?.page === undefined ? dma?.status : `page ${dma.page} of ${dma.old ? 'the old ' : ''}vm${dma.vm}`;
    return {
      rule: RULE,
      message: `${o.dev} has not been claimed since the kexec; page ${page} gave ${got}, expected ${expected}`,
    };
  }
}

/** See the module comment. */
export const adoptedKept: Property = {
  name: 'adopted-kept',
  title: 'after a kexec unclaimed streams go on, and nobody is given a VMID or an ASID that they name',
  foreign: false,
  monitor: (watched) => new AdoptedKept(watched),
};
