/**
 * What TLB entries are tagged with (IHI 0070 3.17). Each address space that entries may belong to holds a number, and
 * entries carry the number it had when they were made. To drop all entries of a space, its number is forgotten: nothing
 * matches the old one any more, and no entry has to be visited.
 */
import { StreamWorld } from './transaction.ts';

/** What a space's entries translate. */
export const TagKind = { VA: 0, Global: 1, S1Table: 2, IPA: 3, S2Table: 4 } as const;
export type TagKind = (typeof TagKind)[keyof typeof TagKind];

/** Entries of one kind that share StreamWorld, VMID and, where it counts, ASID and ASET. */
export class TagSpace {
  /** Number its entries carry; 0: it has none. */
  id = 0;
  readonly group: TagGroup;
  readonly kind: TagKind;
  /** -1: the kind has no ASID. */
  readonly ASID: number;
  readonly ASET: number;
  /** Stands in the group's list of stage 1 spaces in use. */
  listed = false;

  constructor(group: TagGroup, kind: TagKind, ASID: number, ASET: number) {
    this.group = group;
    this.kind = kind;
    this.ASID = ASID;
    this.ASET = ASET;
  }
}

/**
 * A stage 1 block whose combined entries are smaller than itself because stage 2 pages are. An invalidation by any
 * address of the block has to reach all of them.
 */
export interface SplitBlock {
  dead: boolean;
  /** Level of the stage 1 leaf. */
  readonly level: number;
  readonly granule: number;
}

/** All spaces of one StreamWorld and VMID. */
export class TagGroup {
  readonly world: StreamWorld;
  /** -1: the world has no VMID. */
  readonly VMID: number;
  /** Goes into the set index of all of the group's entries. */
  readonly salt: number;
  readonly ipa: TagSpace;
  readonly s2Tables: TagSpace;
  readonly globals: readonly [TagSpace, TagSpace];
  readonly #asids = new Map<number, TagSpace>();
  readonly #tables = new Map<number, TagSpace>();
  readonly #stage1: TagSpace[] = [];
  readonly #blocks = new Map<number, Map<number, SplitBlock>>();
  #blockCount = 0;

  constructor(world: StreamWorld, VMID: number) {
    this.world = world;
    this.VMID = VMID;
    this.salt = Math.imul(VMID + 2, 0x85eb_ca6b) ^ Math.imul(world, 0xc2b2_ae35);
    this.ipa = new TagSpace(this, TagKind.IPA, -1, 0);
    this.s2Tables = new TagSpace(this, TagKind.S2Table, -1, 0);
    this.globals = [new TagSpace(this, TagKind.Global, -1, 0), new TagSpace(this, TagKind.Global, -1, 1)];
  }

  /** The space of an ASID's leaves (VA) or tables (S1Table). */
  asid(kind: typeof TagKind.VA | typeof TagKind.S1Table, ASID: number, ASET: number): TagSpace {
    const spaces = kind === TagKind.VA ? this.#asids : this.#tables;
    const key = ASID * 2 + ASET;
    let space = spaces.get(key);
    if (space === undefined) {
      space = new TagSpace(this, kind, ASID, ASET);
      spaces.set(key, space);
    }
    return space;
  }

  /** Spaces made so far, for the bound on them. */
  get size(): number {
    return this.#asids.size + this.#tables.size;
  }

  /** Notes that a stage 1 space is in use. */
  list(space: TagSpace): void {
    if (space.listed) return;
    space.listed = true;
    this.#stage1.push(space);
  }

  /** Forgets all stage 1 entries: leaves, combined ones, global ones and tables. */
  dropStage1(): void {
    for (const space of this.#stage1) {
      space.id = 0;
      space.listed = false;
    }
    this.#stage1.length = 0;
    this.#blocks.clear();
    this.#blockCount = 0;
  }

  /** Forgets entries of intermediate addresses, leaves and tables. */
  dropStage2(): void {
    this.ipa.id = 0;
    this.s2Tables.id = 0;
  }

  /** Forgets an ASID's non-global leaves and its tables. sharedOnly: ASET=0 only. */
  dropAsid(ASID: number, sharedOnly: boolean): void {
    for (let ASET = 0; ASET < (sharedOnly ? 1 : 2); ASET++) {
      const leaves = this.#asids.get(ASID * 2 + ASET);
      if (leaves !== undefined) leaves.id = 0;
      const tables = this.#tables.get(ASID * 2 + ASET);
      if (tables !== undefined) tables.id = 0;
    }
  }

  /** Forgets all global leaves. */
  dropGlobals(): void {
    for (const space of this.globals) space.id = 0;
  }

  /** The split block of 2^size bytes with this block number. */
  block(size: number, number: number, level: number, granule: number, limit: number): SplitBlock {
    const known = this.#blocks.get(size)?.get(number);
    if (known !== undefined) return known;
    if (this.#blockCount >= limit) this.#dropBlocks();
    const made = { dead: false, level, granule };
    let blocks = this.#blocks.get(size);
    if (blocks === undefined) {
      blocks = new Map();
      this.#blocks.set(size, blocks);
    }
    blocks.set(number, made);
    this.#blockCount++;
    return made;
  }

  /** More blocks than entries can be in use: dropping entries is always allowed (3.21.1). */
  #dropBlocks(): void {
    for (const blocks of this.#blocks.values()) {
      for (const block of blocks.values()) block.dead = true;
      blocks.clear();
    }
    this.#blockCount = 0;
  }

  /**
   * Kills split blocks that overlap [first, last] (addresses divided by 4096; both included), of a level if level is
   * not 0, of a granule if granule is not 0. Entries of all ASIDs in such a block go.
   */
  dropBlocks(first: number, last: number, level: number, granule: number): void {
    for (const [size, blocks] of this.#blocks) {
      if (blocks.size === 0) continue;
      const unit = 2 ** (size - 12);
      const from = Math.floor(first / unit);
      const to = Math.floor(last / unit);
      const kill = (number: number, block: SplitBlock): void => {
        if ((level !== 0 && block.level !== level) || (granule !== 0 && block.granule !== granule)) return;
        block.dead = true;
        blocks.delete(number);
        this.#blockCount--;
      };
      if (to - from < blocks.size)
        for (let number = from; number <= to; number++) {
          const block = blocks.get(number);
          if (block !== undefined) kill(number, block);
        }
      else for (const [number, block] of blocks) if (number >= from && number <= to) kill(number, block);
    }
  }
}

/** Spaces that may exist at once; beyond, everything cached is dropped and counting starts again. */
const MAX_SPACES = 1 << 17;
/** Numbers are signed 32-bit integers above 0. */
const MAX_ID = 0x7fff_fffe;

/** All tag groups of a TLB. */
export class TagGroups {
  /** Changes when groups handed out before are no longer the ones in use. */
  generation = 0;
  readonly #groups = new Map<number, TagGroup>();
  #nextId = 1;
  #spaces = 0;

  /** The group of a StreamWorld and VMID (-1: none). */
  group(world: StreamWorld, VMID: number): TagGroup {
    const key = (VMID + 1) * 4 + world;
    let group = this.#groups.get(key);
    if (group === undefined) {
      if (++this.#spaces > MAX_SPACES) this.#restart();
      group = new TagGroup(world, VMID);
      this.#groups.set(key, group);
    }
    return group;
  }

  /** The group, if anything was ever tagged with it. */
  find(world: StreamWorld, VMID: number): TagGroup | undefined {
    return this.#groups.get((VMID + 1) * 4 + world);
  }

  /** The space of an ASID, as {@link TagGroup.asid}; counts towards the bound. */
  asid(group: TagGroup, kind: typeof TagKind.VA | typeof TagKind.S1Table, ASID: number, ASET: number): TagSpace {
    const before = group.size;
    const space = group.asid(kind, ASID, ASET);
    this.#spaces += group.size - before;
    return space;
  }

  /** Groups of a StreamWorld in the order they were first used. */
  *of(world: StreamWorld): Generator<TagGroup> {
    for (const group of this.#groups.values()) if (group.world === world) yield group;
  }

  /** The number of a space, given to it now if it has none. */
  live(space: TagSpace): number {
    if (space.id === 0) {
      if (this.#nextId > MAX_ID || this.#spaces > MAX_SPACES) this.#restart();
      space.id = this.#nextId++;
      if (space.kind <= TagKind.S1Table) space.group.list(space);
    }
    return space.id;
  }

  /** Forgets all entries of a world. */
  dropWorld(world: StreamWorld): void {
    for (const group of this.of(world)) {
      group.dropStage1();
      group.dropStage2();
    }
  }

  #restart(): void {
    for (const world of Object.values(StreamWorld)) this.dropWorld(world);
    this.#groups.clear();
    this.#spaces = 0;
    this.generation++;
    // Numbers go on: an old entry's number must not come back.
    if (this.#nextId > MAX_ID) this.#nextId = 1;
  }
}
