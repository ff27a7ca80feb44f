/** The life of ASIDs on one SMMU (rules ASID-1 to ASID-5, CFG-11): as vmids.ts, for tags of (StreamWorld, VMID, ASID). */
import type { StreamWorld } from '../../spec/index.ts';
import { type Context, hex } from './context.ts';
import { type Flush, reachesVmid } from './flush.ts';

/** A tag of stage 1 entries. */
export interface AsidTag {
  readonly world: StreamWorld;
  /** -1: none. */
  readonly VMID: number;
  readonly ASID: number;
}

/** A CD as seen through a stream. */
export interface AsidUser {
  readonly sid: number;
  readonly ssid: number;
  readonly units: readonly [number, number];
  /** ASID of the CD as it stands in memory; -1: not valid. */
  readonly memoryAsid: number;
}

/** What is known of one tag. */
class Asid {
  readonly tag: AsidTag;
  /** Users, and what TLB entries may hold of the configuration of each. */
  readonly users = new Map<AsidUser, string>();
  emptyStrict = 0;
  emptyLenient = 0;
  dirty = false;
  /** Global leaves were walked: NH_ASID leaves them (4.4.2.2). */
  globals = false;
  flushedInUse = false;
  partial = false;
  /** What TLB entries were made from changed; 0: no, or invalidated since. Else when the CFGI of it completed. */
  rekeyed = 0;
  mixed = false;
  /** What entries were made from last. */
  lastKey = '';
  readonly reported = new Set<string>();

  constructor(tag: AsidTag) {
    this.tag = tag;
  }
}

const keyOf = ({ world, VMID, ASID }: AsidTag): string => `${world} ${VMID} ${ASID}`;

/** See the module comment. */
export class Asids {
  readonly #context: Context;
  readonly #smmu: string;
  readonly #asids = new Map<string, Asid>();
  readonly #live = new Set<Asid>();
  /** The StreamWorld in which each stream used a CD last. */
  readonly #worlds = new Map<string, StreamWorld>();
  /** Why some queue still holds a command that names the ASID, or ''. */
  readonly #pending: (asid: number) => string;

  constructor(context: Context, smmu: string, pending: (asid: number) => string) {
    this.#context = context;
    this.#smmu = smmu;
    this.#pending = pending;
  }

  #get(tag: AsidTag): Asid {
    const key = keyOf(tag);
    let asid = this.#asids.get(key);
    if (asid === undefined) {
      asid = new Asid(tag);
      this.#asids.set(key, asid);
    }
    return asid;
  }

  /** Whether TLB entries of a tag may exist. */
  dirty(tag: AsidTag): boolean {
    return this.#asids.get(keyOf(tag))?.dirty ?? false;
  }

  /** A CD may be fetched with this ASID. */
  install(tag: AsidTag, user: AsidUser, cachedKey: string): void {
    const asid = this.#get(tag);
    const before = asid.users.get(user);
    if (asid.users.size === 0) {
      if (asid.dirty && asid.lastKey !== '' && asid.lastKey !== cachedKey) this.#again(asid, user);
      asid.flushedInUse = asid.partial = false;
    }
    asid.lastKey = cachedKey;
    this.#worlds.set(`${user.sid}/${user.ssid}`, tag.world);
    if (before !== undefined && before !== cachedKey) asid.rekeyed = Number.POSITIVE_INFINITY;
    asid.users.set(user, cachedKey);
    asid.dirty = true;
    asid.mixed = asid.users.size > 1;
    this.#live.add(asid);
  }

  /** A tag comes into use again with another configuration, and entries left over. */
  #again(asid: Asid, user: AsidUser): void {
    const world = this.#worlds.get(`${user.sid}/${user.ssid}`);
    const back = world !== undefined && world !== asid.tag.world;
    this.#report(
      back ? 'CFG-15' : 'ASID-2',
      asid,
      `comes into use again for ${hex(user.sid)}/${user.ssid}${back ? `, which was in ${world} meanwhile,` : ''} with another configuration, and no TLBI of it completed since its last use`,
    );
  }

  /** No cache holds the CD with this ASID any more. */
  leave(tag: AsidTag, user: AsidUser, consumed: number): void {
    const asid = this.#get(tag);
    if (!asid.users.delete(user) || asid.users.size > 0) return;
    asid.emptyStrict = this.#context.clock.now;
    asid.emptyLenient = consumed;
    asid.rekeyed = 0;
  }

  /** The invalidation of a CD completed: from now on a TLBI can remove what was made from its old contents. */
  settled(tag: AsidTag, consumed: number): void {
    const asid = this.#get(tag);
    if (asid.rekeyed === 0) return;
    asid.rekeyed = this.#context.ordering('CFG-14') === 'strict' ? this.#context.clock.now : consumed;
  }

  /** A walk found a global leaf. */
  global(tag: AsidTag): void {
    this.#get(tag).globals = true;
  }

  /** A TLBI was consumed. */
  consumed(flush: Flush, VMW: number): void {
    for (const asid of this.#live) if (covers(flush, asid, VMW) === 'all') asid.flushedInUse = asid.users.size > 0;
  }

  /** A TLBI that was consumed at `consumed` has completed. */
  flushed(flush: Flush, VMW: number, consumed: number): void {
    for (const asid of [...this.#live]) {
      const covered = covers(flush, asid, VMW);
      if (covered === 'none') continue;
      if (covered === 'all' && consumed >= asid.rekeyed) asid.rekeyed = 0;
      if (asid.users.size > 0) continue;
      const strict = this.#context.ordering('ASID-3') === 'strict';
      if (consumed < (strict ? asid.emptyStrict : asid.emptyLenient)) continue;
      if (covered === 'some') {
        asid.partial = true;
        continue;
      }
      asid.dirty = asid.flushedInUse = asid.partial = asid.globals = false;
      this.#live.delete(asid);
    }
  }

  /** Software relies on a stream: its tags are judged. */
  relies(tag: AsidTag, why: string): void {
    const asid = this.#asids.get(keyOf(tag));
    if (asid === undefined) return;
    if (asid.mixed) {
      asid.mixed = false;
      const [first, ...others] = [...asid.users.values()];
      if (others.some((key) => key !== first))
        this.#report('CFG-11', asid, `is used by CDs that differ in what TLB entries hold, when ${why}`);
    }
    if (asid.rekeyed !== 0) {
      asid.rekeyed = 0;
      this.#report(
        'CFG-14',
        asid,
        `kept its tag while its CD changed, and no TLBI followed the invalidation of the CD when ${why}`,
      );
    }
  }

  /** Every tag that may have entries. */
  tags(): AsidTag[] {
    return [...this.#live].map(({ tag }) => tag);
  }

  /** Announcement: an ASID is given back. Only tags outside a VM are the host's. */
  freed(id: number, ofHost: (vmid: number) => boolean, owner: string): void {
    this.#context.history.text(this.#smmu, `ASID ${id} freed by ${owner}`, { ASID: id });
    for (const asid of this.#live)
      if (asid.tag.ASID === id && ofHost(asid.tag.VMID)) this.#judgeFree(asid, `freed by ${owner}`);
  }

  /** Announcement: an ASID is given out. */
  allocated(id: number, ofHost: (vmid: number) => boolean, owner: string): void {
    this.#context.history.text(this.#smmu, `ASID ${id} allocated to ${owner}`, { ASID: id });
    for (const asid of this.#live) {
      if (asid.tag.ASID !== id || !ofHost(asid.tag.VMID)) continue;
      if (asid.reported.size === 0) this.#judgeFree(asid, `given to ${owner}`);
      asid.reported.clear();
    }
  }

  #judgeFree(asid: Asid, how: string): void {
    const pending = this.#pending(asid.tag.ASID);
    if (asid.users.size > 0) {
      const moved = [...asid.users.keys()].every(({ memoryAsid }) => memoryAsid >= 0 && memoryAsid !== asid.tag.ASID);
      const rule = moved ? 'ASID-5' : 'ASID-1';
      this.#report(rule, asid, `was ${how} while ${names(asid)} may still name it`);
    } else if (!asid.dirty) return;
    else if (asid.flushedInUse)
      this.#report(
        'ASID-3',
        asid,
        `was ${how} while the TLB may hold entries of it: the TLBI was consumed before the last CD that names it was gone from every cache`,
      );
    else if (asid.partial)
      this.#report(
        'ASID-4',
        asid,
        `was ${how} while the TLB may hold entries of it: only part of them was invalidated`,
      );
    else
      this.#report(
        'ASID-2',
        asid,
        `was ${how} while the TLB may hold entries of it: no TLBI of it completed since its last use${pending}`,
      );
  }

  #report(rule: string, asid: Asid, what: string): void {
    if (asid.reported.has(rule)) return;
    asid.reported.add(rule);
    const { ASID, VMID, world } = asid.tag;
    const [user] = asid.users.keys();
    this.#context.report(
      rule,
      `${this.#smmu}: ASID ${ASID} (${world}${VMID < 0 ? '' : `, VMID ${VMID}`}) ${what}`,
      {
        smmu: this.#smmu,
        ASID,
        ...(VMID < 0 ? {} : { VMID }),
        ...(user === undefined ? {} : { StreamID: user.sid, SubstreamID: user.ssid }),
      },
      [...asid.users.keys()].map(({ units }) => units),
    );
  }
}

/** How much of a tag's entries an invalidation removes. */
function covers(flush: Flush, { tag, globals }: Asid, VMW: number): 'all' | 'some' | 'none' {
  if (flush.void) return 'none';
  if (tag.world !== 'NS-EL1') {
    if (flush.scope === 'el2-all') return 'all';
    if (flush.scope === 'el2-asid' && flush.ASID === tag.ASID) return globals ? 'some' : 'all';
    return flush.scope === 'el2-va' || flush.scope === 'el2-vaa' ? 'some' : 'none';
  }
  if (flush.scope.startsWith('el2') || flush.scope === 's2-ipa' || !reachesVmid(flush, tag.VMID, VMW)) return 'none';
  if (flush.scope === 'nh-asid') return flush.ASID !== tag.ASID ? 'none' : globals ? 'some' : 'all';
  if (flush.scope === 'nh-va') return flush.ASID === tag.ASID ? 'some' : 'none';
  return flush.scope === 'nh-vaa' ? 'some' : 'all';
}

const names = (asid: Asid): string =>
  [...asid.users.keys()]
    .slice(0, 4)
    .map(({ sid, ssid }) => `the CD of ${hex(sid)}/${ssid}`)
    .join(', ');
