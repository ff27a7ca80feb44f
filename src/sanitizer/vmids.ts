/** The life of the VMIDs of one SMMU: who uses each, whether its TLB entries are gone, who owns it (rules VMID-*). */
import { type Context, hex } from './context.ts';
import type { Flush } from './flush.ts';
import { reachesVmid } from './flush.ts';
import type { Use } from './ste-facts.ts';

/** States of a VMID's life, as spec/vmid-lifecycle.md names them. */
export type VmidState = 'FREE' | 'ALLOCATED' | 'INSTALLED' | 'DRAINING-CFG' | 'DRAINING-TLB' | 'CLEAN';

/** A stream as far as VMIDs are concerned. */
export interface VmidUser {
  readonly sid: number;
  /** 64-bit units of its STE, [first, end). */
  readonly units: readonly [number, number];
  /** VMID that its STE in memory tags entries with; -1: none. */
  readonly memoryVmid: number;
}

/** What is known of one VMID. */
class Vmid {
  readonly users = new Map<VmidUser, readonly Use[]>();
  /** When the last user was gone for sure, and when the invalidation that said so was consumed. */
  emptyStrict = 0;
  emptyLenient = 0;
  /** The same for the last user with stage 1. */
  stage1 = false;
  stage1Strict = 0;
  stage1Lenient = 0;
  /** Entries of stage 1 (combined ones included), and of stage 2, may be in the TLB. */
  dirtyVa = false;
  dirtyIpa = false;
  /** A covering TLBI was consumed while there were users, and none after. */
  flushedInUse = false;
  /** Something less than S12_VMALL has completed since the last user was gone. */
  partial = false;
  /** SMMUEN went to 0 meanwhile. */
  switchedOff = false;
  /** Last stage 2 configuration that was installed. */
  s2key = '';
  /** null: nobody has announced that it has it. */
  owner: string | null = null;
  /** It was owned once. */
  known = false;
  /**
   * What entries were made from changed under a user: when the CFGI of that completed (Infinity: not yet); 0: no, or
   * invalidated since.
   */
  rekeyed = 0;
  /** Findings about the present life, by rule. */
  readonly reported = new Set<string>();

  get dirty(): boolean {
    return this.dirtyVa || this.dirtyIpa;
  }
}

/** What the free of a VMID is checked against beside its own state. */
export interface Outside {
  /** CR0.VMW. */
  readonly VMW: number;
  /** Why some queue still holds a command that names it, or ''. */
  pending(vmid: number): string;
  /** Name of an enabled VINTF that carries it, or ''. */
  vintf(vmid: number): string;
  /** Another SMMU flushed this number since: its name, or ''. */
  flushedElsewhere(vmid: number): string;
}

/** See the module comment. */
export class Vmids {
  readonly #context: Context;
  readonly #smmu: string;
  readonly #bits: number;
  readonly #outside: Outside;
  readonly #vmids = new Map<number, Vmid>();
  /** VMIDs with users or entries; CR0.VMW needs to know them all. */
  readonly #live = new Set<number>();
  #broken = { vmid: -1, time: -1 };

  constructor(context: Context, smmu: string, bits: number, outside: Outside) {
    this.#context = context;
    this.#smmu = smmu;
    this.#bits = bits;
    this.#outside = outside;
  }

  #get(v: number): Vmid {
    let vmid = this.#vmids.get(v);
    if (vmid === undefined) {
      vmid = new Vmid();
      this.#vmids.set(v, vmid);
    }
    return vmid;
  }

  /** Where a VMID stands. */
  state(v: number): VmidState {
    const vmid = this.#vmids.get(v);
    if (vmid === undefined) return 'FREE';
    if (vmid.users.size > 0)
      return [...vmid.users.keys()].some(({ memoryVmid }) => memoryVmid === v) ? 'INSTALLED' : 'DRAINING-CFG';
    if (vmid.dirty) return 'DRAINING-TLB';
    if (vmid.owner === null) return 'FREE';
    return vmid.s2key === '' ? 'ALLOCATED' : 'CLEAN';
  }

  /** Who owns a VMID by announcement, or null. */
  owner(v: number): string | null {
    return this.#vmids.get(v)?.owner ?? null;
  }

  /** Streams that may tag entries with a VMID. */
  users(v: number): VmidUser[] {
    return [...(this.#vmids.get(v)?.users.keys() ?? [])];
  }

  /** Uses of a VMID by all its streams. */
  *uses(v: number): Iterable<readonly [VmidUser, Use]> {
    for (const [user, uses] of this.#vmids.get(v)?.users ?? []) for (const use of uses) yield [user, use];
  }

  /** Whether TLB entries of a VMID may exist. */
  dirty(v: number): boolean {
    return this.#vmids.get(v)?.dirty ?? false;
  }

  /** Whether entries of stage 1 or combined ones may exist. */
  dirtyVa(v: number): boolean {
    return this.#vmids.get(v)?.dirtyVa ?? false;
  }

  /**
   * A stream's uses changed.
   * @param consumed when the invalidation that ended old ones was consumed; the present for a store
   */
  update(user: VmidUser, before: readonly Use[], after: readonly Use[], consumed: number): void {
    for (const v of new Set([...before, ...after].map(({ VMID }) => VMID))) {
      if (v < 0) continue;
      const uses = after.filter(({ VMID }) => VMID === v);
      if (uses.length > 0) this.#install(v, user, uses);
      else this.#leave(v, user, consumed);
      this.#noteStage1(this.#get(v), consumed);
    }
  }

  #install(v: number, user: VmidUser, uses: readonly Use[]): void {
    const vmid = this.#get(v);
    const fresh = vmid.users.size === 0;
    const before = vmid.users.get(user);
    vmid.users.set(user, uses);
    this.#judgeShared(v, vmid, user, uses);
    this.#judgeKeys(vmid, before, uses);
    this.#live.add(v);
    const s2key = uses.find(({ s2 }) => s2)?.s2key ?? '';
    if (fresh && vmid.dirty && s2key !== '' && vmid.s2key !== '' && s2key !== vmid.s2key)
      this.#report(
        'VMID-2',
        v,
        vmid,
        `STE 0x${user.sid.toString(16)} installs VMID ${v} with another stage 2 configuration while TLB entries of the one before may exist: no TLBI_S12_VMALL of it completed`,
        [user],
      );
    if (fresh) vmid.partial = vmid.flushedInUse = vmid.switchedOff = false;
    if (uses.some(({ s1 }) => s1)) vmid.dirtyVa = true;
    if (uses.some(({ s2 }) => s2)) vmid.dirtyIpa = true;
    if (s2key !== '') vmid.s2key = s2key;
    if (this.#context.noted('vmid') && s2key !== '' && vmid.owner === null && v !== 0)
      this.#report(
        'VMID-18',
        v,
        vmid,
        `STE 0x${user.sid.toString(16)} names VMID ${v}, which ${vmid.known ? 'was given back' : 'nobody has allocated'}`,
        [user],
      );
  }

  /** Streams that share a VMID agree in what TLB entries hold, and stage 1 alone does not mix with both stages. */
  #judgeShared(v: number, vmid: Vmid, user: VmidUser, uses: readonly Use[]): void {
    for (const [other, others] of vmid.users) {
      if (other === user) continue;
      for (const use of uses)
        for (const its of others) {
          const both = [user, other];
          const pair = `STEs ${hex(user.sid)} and ${hex(other.sid)}`;
          if (use.s2 && its.s2 && (use.s2key !== its.s2key || (use.ptw >= 0 && its.ptw >= 0 && use.ptw !== its.ptw)))
            this.#report('CFG-10', v, vmid, `${pair} share VMID ${v} and differ in stage 2`, both);
          if (use.s1 && its.s1 && use.s2 !== its.s2)
            this.#report(
              'CFG-12',
              v,
              vmid,
              `${pair} share VMID ${v}, one with stage 1 alone and one with both stages`,
              both,
            );
        }
      // All users but this one agreed before: one comparison is enough.
      return;
    }
  }

  #judgeKeys(vmid: Vmid, before: readonly Use[] | undefined, uses: readonly Use[]): void {
    if (before === undefined) return;
    const keys = new Set([...before, ...uses].map(({ s2key }) => s2key).filter((key) => key !== ''));
    if (keys.size > 1) vmid.rekeyed = Number.POSITIVE_INFINITY;
  }

  /** The CFGI of a stream completed: from now on a TLBI can remove what was made from its old STE. */
  settled(v: number, consumed: number): void {
    const vmid = this.#vmids.get(v);
    if (vmid === undefined || vmid.rekeyed === 0) return;
    vmid.rekeyed = this.#context.ordering('CFG-14') === 'strict' ? this.#context.clock.now : consumed;
  }

  /** Software relies on a stream. */
  relies(user: VmidUser, v: number, why: string): void {
    const vmid = this.#vmids.get(v);
    if (vmid === undefined || vmid.rekeyed === 0) return;
    vmid.rekeyed = 0;
    this.#report(
      'CFG-14',
      v,
      vmid,
      `VMID ${v} stayed in use while the stage 2 configuration of STE ${hex(user.sid)} changed, and no TLBI of it followed the CFGI when ${why}`,
      [user],
    );
  }

  #leave(v: number, user: VmidUser, consumed: number): void {
    const vmid = this.#get(v);
    if (!vmid.users.delete(user) || vmid.users.size > 0) return;
    vmid.emptyStrict = this.#context.clock.now;
    vmid.emptyLenient = consumed;
    vmid.rekeyed = 0;
    for (const rule of ['CFG-10', 'CFG-12', 'CFG-14']) vmid.reported.delete(rule);
  }

  /** Whether entries of stage 1 may still be made, and since when not. */
  #noteStage1(vmid: Vmid, consumed: number): void {
    let stage1 = false;
    for (const uses of vmid.users.values()) stage1 ||= uses.some(({ s1 }) => s1);
    if (vmid.stage1 && !stage1) {
      vmid.stage1Strict = this.#context.clock.now;
      vmid.stage1Lenient = consumed;
    }
    vmid.stage1 = stage1;
  }

  /** A TLBI was consumed: one that comes before the last user is gone does not count, and is remembered for that. */
  consumed(flush: Flush, VMW: number): void {
    if (flush.scope !== 's12-vmall' && flush.scope !== 'nsnh-all') return;
    for (const v of this.#reached(flush, VMW)) {
      const vmid = this.#get(v);
      vmid.flushedInUse = vmid.users.size > 0;
    }
  }

  /** A TLBI that was consumed at `consumed` has completed. */
  flushed(flush: Flush, VMW: number, consumed: number): void {
    for (const v of this.#reached(flush, VMW)) this.#flushOne(v, flush, consumed);
  }

  #flushOne(v: number, flush: Flush, consumed: number): void {
    const vmid = this.#get(v);
    const everything = flush.scope === 's12-vmall' || flush.scope === 'nsnh-all';
    if (everything && consumed >= vmid.rekeyed) vmid.rekeyed = 0;
    const strict = this.#context.ordering('VMID-3') === 'strict';
    // The VMID may live on with stage 2 alone: its combined entries are gone all the same.
    if ((everything || flush.scope === 'nh-all') && !vmid.stage1)
      if (consumed >= (strict ? vmid.stage1Strict : vmid.stage1Lenient)) vmid.dirtyVa = false;
    if (vmid.users.size > 0) return;
    if (consumed < (strict ? vmid.emptyStrict : vmid.emptyLenient)) {
      if (everything) vmid.flushedInUse = true;
      return;
    }
    if (everything) vmid.dirtyVa = vmid.dirtyIpa = false;
    else if (flush.scope === 'nh-all') {
      vmid.dirtyVa = false;
      vmid.partial = true;
    } else if (flush.scope === 's2-ipa') vmid.partial = true;
    if (vmid.dirty) return;
    vmid.flushedInUse = vmid.partial = vmid.switchedOff = false;
    this.#live.delete(v);
  }

  #reached(flush: Flush, VMW: number): number[] {
    if (flush.scope === 'nsnh-all') return [...this.#live];
    if (flush.scope.startsWith('el2')) return [];
    if (VMW === 0) return this.#live.has(flush.VMID) && !flush.void ? [flush.VMID] : [];
    return [...this.#live].filter((v) => reachesVmid(flush, v, VMW));
  }

  /** CR0.VMW changed: VMIDs of different owners must not fall into one group (VMID-11). */
  judgeGroups(VMW: number): void {
    if (VMW === 0) return;
    const groups = new Map<number, [number, Vmid]>();
    for (const [v, vmid] of this.#vmids) {
      if (vmid.owner === null) continue;
      const other = groups.get(v >>> VMW);
      groups.set(v >>> VMW, [v, vmid]);
      if (other !== undefined && other[1].owner !== vmid.owner)
        this.#report(
          'VMID-11',
          v,
          vmid,
          `CR0.VMW=${VMW} puts VMID ${other[0]} of ${other[1].owner} and VMID ${v} of ${vmid.owner} into one group`,
          [],
        );
    }
  }

  /** SMMUEN went to 0: nothing is flushed by that (3.11). */
  switchedOff(): void {
    for (const v of this.#live) this.#get(v).switchedOff = true;
  }

  /** Forgets who owns what: another driver takes over. */
  forgetOwners(): void {
    for (const vmid of this.#vmids.values()) vmid.owner = null;
  }

  /** Announcement: `owner` has the number now. */
  allocated(v: number, owner: string): void {
    const vmid = this.#get(v);
    vmid.known = true;
    vmid.reported.clear();
    this.#context.history.text(this.#smmu, `VMID ${v} allocated to ${owner}`, { VMID: v });
    if (v === 0)
      this.#report(
        'VMID-10',
        v,
        vmid,
        `VMID 0, which streams without stage 2 are tagged with, was given to ${owner}`,
        [],
      );
    else if (v < 0 || v >= 2 ** this.#bits)
      this.#report('VMID-9', v, vmid, `VMID ${v} was given to ${owner}; the SMMU has ${this.#bits}-bit VMIDs`, []);
    else if (vmid.owner !== null && vmid.owner !== owner)
      this.#report('VMID-5', v, vmid, `VMID ${v} belongs to ${vmid.owner} and was given to ${owner} as well`, []);
    else if (vmid.owner === null) this.#fresh(v, vmid, owner);
    vmid.owner = owner;
    this.judgeGroups(this.#outside.VMW);
  }

  #fresh(v: number, vmid: Vmid, owner: string): void {
    if (vmid.users.size > 0)
      this.#report('VMID-1', v, vmid, `VMID ${v} was given to ${owner} while ${names(vmid)} may still name it`, [
        ...vmid.users.keys(),
      ]);
    else if (vmid.dirty)
      this.#report('VMID-2', v, vmid, `VMID ${v} was given to ${owner} while the TLB may hold entries of it`, []);
  }

  /** Announcement: the number passes to another owner. */
  given(v: number, owner: string): void {
    const vmid = this.#get(v);
    this.#context.history.text(this.#smmu, `VMID ${v} passes from ${vmid.owner ?? 'nobody'} to ${owner}`, { VMID: v });
    vmid.owner = owner;
  }

  /** Announcement: `owner` gives the number back. */
  freed(v: number, owner: string): void {
    const vmid = this.#get(v);
    this.#context.history.text(this.#smmu, `VMID ${v} freed by ${owner}`, { VMID: v });
    if (vmid.owner === null) {
      this.#report('VMID-17', v, vmid, `VMID ${v} was freed by ${owner} and is nobody's`, []);
      return;
    }
    if (vmid.owner !== owner)
      this.#report('VMID-17', v, vmid, `VMID ${v} was freed by ${owner}; it belongs to ${vmid.owner}`, []);
    else this.#judgeFree(v, vmid, owner);
    vmid.owner = null;
  }

  /** The VMID freed last, since a moment, while something may name it; -1: none. */
  brokenFree(since: number): number {
    return this.#broken.time >= since ? this.#broken.vmid : -1;
  }

  #judgeFree(v: number, vmid: Vmid, owner: string): void {
    if (vmid.users.size > 0 || vmid.dirty) this.#broken = { vmid: v, time: this.#context.clock.now };
    const vintf = this.#outside.vintf(v);
    const pending = this.#outside.pending(v);
    const moved = this.#other(v, owner);
    if (vmid.users.size > 0) {
      const rule = moved === undefined ? 'VMID-1' : 'VMID-7';
      const also = moved === undefined ? '' : ` (${owner} has moved to VMID ${moved})`;
      this.#report(rule, v, vmid, `VMID ${v} freed by ${owner} while ${names(vmid)} may still name it${also}`, [
        ...vmid.users.keys(),
      ]);
    } else if (vintf !== '') {
      const rule = moved === undefined ? 'CMDQV-1' : 'VMID-7';
      this.#report(rule, v, vmid, `VMID ${v} freed by ${owner} while ${vintf} carries it`, []);
    } else if (pending !== '') this.#report('VMID-14', v, vmid, `VMID ${v} freed by ${owner} while ${pending}`, []);
    else if (vmid.dirty) this.#judgeDirty(v, vmid, owner);
  }

  #judgeDirty(v: number, vmid: Vmid, owner: string): void {
    const elsewhere = this.#outside.flushedElsewhere(v);
    const freed = `VMID ${v} freed by ${owner} while the TLB may hold entries of it`;
    if (vmid.flushedInUse)
      this.#report(
        'VMID-3',
        v,
        vmid,
        `${freed}: the TLBI was consumed before the last STE that names it was gone from every cache`,
        [],
      );
    else if (vmid.partial)
      this.#report('VMID-4', v, vmid, `${freed}: only ${vmid.dirtyVa ? 'stage 2' : 'stage 1'} was invalidated`, []);
    else if (vmid.switchedOff) this.#report('VMID-13', v, vmid, `${freed}: SMMUEN=0 invalidates nothing`, []);
    else if (elsewhere !== '') this.#report('VMID-15', v, vmid, `${freed}: it was invalidated on ${elsewhere}`, []);
    else this.#report('VMID-2', v, vmid, `${freed}: no TLBI_S12_VMALL of it completed since its last use`, []);
  }

  /** Another VMID that the same owner has on this SMMU. */
  #other(v: number, owner: string): number | undefined {
    for (const [other, vmid] of this.#vmids) if (other !== v && vmid.owner === owner) return other;
    return undefined;
  }

  #report(rule: string, v: number, vmid: Vmid, message: string, users: readonly VmidUser[]): void {
    if (vmid.reported.has(rule)) return;
    vmid.reported.add(rule);
    const [first] = users;
    this.#context.report(
      rule,
      `${this.#smmu}: ${message}`,
      { smmu: this.#smmu, VMID: v, ...(first === undefined ? {} : { StreamID: first.sid }) },
      users.map(({ units }) => units),
    );
  }
}

const names = (vmid: Vmid): string => {
  const sids = [...vmid.users.keys()].map(({ sid }) => hex(sid));
  return `${sids.length === 1 ? 'STE' : 'STEs'} ${sids.slice(0, 4).join(', ')}${sids.length > 4 ? ' and more' : ''}`;
};
