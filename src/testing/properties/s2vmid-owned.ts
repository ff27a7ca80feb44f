/**
 * The first property: in every valid STE in memory with stage 2 on (Config[1] = 1), S2VMID is not 0, is allocated on that
 * SMMU, and has exactly one owner; an STE with stage 1 alone carries 0, which no allocator hands out.
 *
 * "Allocated" and "owner" are what the driver announced. The model says who the owner must be: all streams of one owner
 * carry one VMID for as long as it owns one, and streams of two owners of one SMMU never carry the same.
 */
import { slotValue } from '../../../spec/layout.ts';
import { STE } from '../../../spec/ste.ts';
import { s2Enabled } from '../../../spec/stream-world.ts';
import type { Smmu } from '../../hw/smmu.ts';
import type { Operation } from '../operation.ts';
import type { Monitor, Property, Violation, Watched } from '../property.ts';
import type { TranslatingSte } from '../streams.ts';

const S2VMID = STE.slot('S2VMID');

/** Operations that attach nothing and give nobody a VMID: STEs that stood stand, or the driver has rewritten them. */
const IDLE: ReadonlySet<Operation['op']> = new Set([
  'dma',
  'translate',
  'guestMap',
  'guestCd',
  'guestTable',
  'invalidate',
  'map',
  'unmap',
]);

const RULE = 's2vmid-owned';

/** What is asked about of a translating STE. */
interface Stream {
  readonly smmu: string;
  readonly sid: number;
  readonly vmid: number;
  /** Null: stage 2 is off. */
  readonly ttb: bigint | null;
}

const where = ({ smmu, sid }: Pick<Stream, 'smmu' | 'sid'>): string =>
  `${smmu}: the STE of StreamID 0x${sid.toString(16)}`;

class S2VmidOwned implements Monitor {
  readonly #watched: Watched;
  /** Per SMMU: the device of each StreamID. */
  readonly #names = new Map<string, Map<number, string>>();
  /** Per SMMU: the VMID of each owner that was seen in an STE. */
  readonly #vmids = new Map<string, Map<string, number>>();
  readonly #streams = new Map<
    string,
    { readonly entries: readonly TranslatingSte[]; readonly streams: readonly Stream[] }
  >();

  #version = -1;

  constructor(watched: Watched) {
    this.#watched = watched;
    for (const { name, smmu, endpoint } of watched.lab.devices)
      for (const sid of endpoint.streamIds)
        this.#names.set(smmu, (this.#names.get(smmu) ?? new Map<number, string>()).set(sid, name));
  }

  after({ op }: Operation): Violation | null {
    const { lab } = this.#watched;
    const [fault] = lab.ledger.faults;
    if (fault !== undefined) return { rule: RULE, message: fault.message };
    const { version } = lab.ledger;
    const idle = IDLE.has(op) && version === this.#version;
    this.#version = version;
    for (const smmu of lab.machine.smmus) {
      if (idle && this.#streams.get(smmu.name)?.entries === lab.streams.of(smmu)) continue;
      const message = this.#smmu(smmu);
      if (message !== null) return { rule: RULE, message };
    }
    return null;
  }

  #smmu(smmu: Smmu): string | null {
    const { lab, model } = this.#watched;
    const seen = this.#ownersOf(smmu.name);
    const roots = new Map<number, Stream>();
    for (const stream of this.#streamsOf(smmu.name, lab.streams.of(smmu))) {
      const { vmid, ttb } = stream;
      if (ttb === null) {
        if (vmid === 0) continue;
        return `${where(stream)} has stage 1 alone and S2VMID ${vmid}, expected 0`;
      }
      const broken =
        this.#number(stream) ?? sharedRoot(roots, stream) ?? (model.policy === null ? null : this.#owner(stream, seen));
      if (broken !== null) return broken;
    }
    return null;
  }

  /** The STEs of an SMMU, taken apart once for each change of its table. */
  #streamsOf(smmu: string, entries: readonly TranslatingSte[]): readonly Stream[] {
    const known = this.#streams.get(smmu);
    if (known?.entries === entries) return known.streams;
    const streams = entries.map(({ sid, ste }) => ({
      smmu,
      sid,
      vmid: slotValue(ste, S2VMID),
      ttb: s2Enabled(ste) ? STE.address(ste, 'S2TTB') : null,
    }));
    this.#streams.set(smmu, { entries, streams });
    return streams;
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

  #number(stream: Stream): string | null {
    const { ledger } = this.#watched.lab;
    const { smmu, vmid } = stream;
    if (vmid === 0) return `${where(stream)} has stage 2 on and S2VMID 0`;
    if (!ledger.heard) return null;
    const owners = ledger.ownersOf(smmu, vmid);
    if (owners.size === 0) return `${where(stream)} names VMID ${vmid}, which is free`;
    return owners.size > 1 ? `${where(stream)} names VMID ${vmid}, which ${[...owners].join(' and ')} own` : null;
  }

  #owner(stream: Stream, seen: Map<string, number>): string | null {
    const { smmu, sid, vmid } = stream;
    const name = this.#names.get(smmu)?.get(sid);
    const owner = name === undefined ? null : this.#watched.model.tagOf(name);
    if (owner === null)
      return `${where(stream)} has stage 2 on with VMID ${vmid}, and ${name ?? 'nobody'} is attached to none`;
    const before = seen.get(owner);
    if (before !== undefined && before !== vmid) return `${where(stream)} names VMID ${vmid}; ${owner} owns ${before}`;
    for (const [other, theirs] of seen)
      if (theirs === vmid && other !== owner)
        return `${where(stream)} names VMID ${vmid} for ${owner}, and ${other} owns it`;
    seen.set(owner, vmid);
    return null;
  }
}

/** One VMID on one SMMU means one stage 2: streams that share it share its tables (IHI 0070 5.2, S2VMID). */
function sharedRoot(roots: Map<number, Stream>, stream: Stream): string | null {
  const other = roots.get(stream.vmid);
  if (other === undefined) roots.set(stream.vmid, stream);
  else if (other.ttb !== stream.ttb)
    return `${where(stream)} names VMID ${stream.vmid} with other stage 2 tables than StreamID 0x${other.sid.toString(16)} has`;
  return null;
}

/** See the module comment. */
export const s2vmidOwned: Property = {
  name: 's2vmid-owned',
  title: 'the S2VMID of every valid STE with stage 2 on is allocated on its SMMU and has one owner',
  foreign: true,
  monitor: (watched) => new S2VmidOwned(watched),
};
