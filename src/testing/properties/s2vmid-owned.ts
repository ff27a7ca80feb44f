/**
 * The first property: in every valid STE in memory with stage 2 on (Config[1] = 1), S2VMID is not 0, is allocated on that
 * SMMU, and has exactly one owner; an STE with stage 1 alone carries 0, which no allocator hands out.
 *
 * "Allocated" and "owner" are what the driver announced. The model says who the owner must be: all streams of one owner
 * carry one VMID for as long as it owns one, and streams of two owners of one SMMU never carry the same.
 */
import { slotValue, type Words } from '../../../spec/layout.ts';
import { STE } from '../../../spec/ste.ts';
import { s2Enabled } from '../../../spec/stream-world.ts';
import type { Smmu } from '../../hw/smmu.ts';
import type { Monitor, Property, Violation, Watched } from '../property.ts';
import { forEachTranslatingSte } from '../stes.ts';

const S2VMID = STE.slot('S2VMID');

const RULE = 's2vmid-owned';

class S2VmidOwned implements Monitor {
  readonly #watched: Watched;
  readonly #names = new Map<string, string>();
  /** Per SMMU: the VMID of each owner that was seen in an STE. */
  readonly #vmids = new Map<string, Map<string, number>>();

  constructor(watched: Watched) {
    this.#watched = watched;
    for (const { name, smmu, sid } of watched.lab.devices) this.#names.set(`${smmu} ${sid}`, name);
  }

  after(): Violation | null {
    const { lab } = this.#watched;
    const [fault] = lab.ledger.faults;
    if (fault !== undefined) return { rule: RULE, message: fault.message };
    for (const smmu of lab.machine.smmus) {
      const message = this.#smmu(smmu);
      if (message !== null) return { rule: RULE, message };
    }
    return null;
  }

  #smmu(smmu: Smmu): string | null {
    const { lab, model } = this.#watched;
    const stage2 = new Map<number, { readonly sid: number; readonly ttb: bigint }>();
    const seen = this.#ownersOf(smmu.name);
    let broken: string | null = null;
    forEachTranslatingSte(lab.machine.memory, smmu, (sid, ste) => {
      if (broken !== null) return;
      const vmid = slotValue(ste, S2VMID);
      const where = `${smmu.name}: the STE of StreamID 0x${sid.toString(16)}`;
      if (!s2Enabled(ste)) {
        if (vmid !== 0) broken = `${where} has stage 1 alone and S2VMID ${vmid}, expected 0`;
        return;
      }
      broken =
        this.#number(smmu, vmid, where) ??
        sharedRoot(stage2, sid, vmid, ste, where) ??
        (model.policy === null ? null : this.#owner(smmu.name, sid, vmid, where, seen));
    });
    return broken;
  }

  /** VMIDs of the owners that still are owners. */
  #ownersOf(smmu: string): Map<string, number> {
    const { model } = this.#watched;
    const seen = this.#vmids.get(smmu) ?? new Map<string, number>();
    this.#vmids.set(smmu, seen);
    if (seen.size > 0) {
      const owners = model.owners(smmu);
      for (const key of [...seen.keys()]) if (!owners.has(key)) seen.delete(key);
    }
    return seen;
  }

  #number(smmu: Smmu, vmid: number, where: string): string | null {
    const { ledger } = this.#watched.lab;
    if (vmid === 0) return `${where} has stage 2 on and S2VMID 0`;
    if (!ledger.heard) return null;
    const owners = ledger.ownersOf(smmu.name, vmid);
    if (owners.size === 0) return `${where} names VMID ${vmid}, which is free`;
    return owners.size > 1 ? `${where} names VMID ${vmid}, which ${[...owners].join(' and ')} own` : null;
  }

  #owner(smmu: string, sid: number, vmid: number, where: string, seen: Map<string, number>): string | null {
    const name = this.#names.get(`${smmu} ${sid}`);
    const owner = name === undefined ? null : this.#watched.model.tagOf(name);
    if (owner === null) return `${where} has stage 2 on with VMID ${vmid}, and ${name ?? 'nobody'} is attached to none`;
    const before = seen.get(owner);
    if (before !== undefined && before !== vmid) return `${where} names VMID ${vmid}; ${owner} owns ${before}`;
    for (const [other, theirs] of seen)
      if (theirs === vmid && other !== owner) return `${where} names VMID ${vmid} for ${owner}, and ${other} owns it`;
    seen.set(owner, vmid);
    return null;
  }
}

/** One VMID on one SMMU means one stage 2: streams that share it share its tables (IHI 0070 5.2, S2VMID). */
function sharedRoot(
  stage2: Map<number, { readonly sid: number; readonly ttb: bigint }>,
  sid: number,
  vmid: number,
  ste: Words,
  where: string,
): string | null {
  const ttb = STE.address(ste, 'S2TTB');
  const other = stage2.get(vmid);
  if (other === undefined) stage2.set(vmid, { sid, ttb });
  else if (other.ttb !== ttb)
    return `${where} names VMID ${vmid} with other stage 2 tables than StreamID 0x${other.sid.toString(16)} has`;
  return null;
}

/** See the module comment. */
export const s2vmidOwned: Property = {
  name: 's2vmid-owned',
  title: 'the S2VMID of every valid STE with stage 2 on is allocated on its SMMU and has one owner',
  foreign: true,
  monitor: (watched) => new S2VmidOwned(watched),
};
