/**
 * Watches one machine while a case runs and counts what its hardware does: commands, events, modes of streams, states of
 * VMIDs, the CMDQV. The counters are arrays that all cases of a campaign share; nothing is built for an act.
 */
import {
  CFGI_ALL_RANGE,
  CMD_CFGI_CD,
  CMD_CFGI_STE,
  CMD_CFGI_STE_RANGE,
  CMD_SYNC,
  CMD_TLBI_NSNH_ALL,
  CMD_TLBI_S12_VMALL,
  opcodeOf,
} from '../../../spec/commands.ts';
import { C_BAD_STE } from '../../../spec/events.ts';
import { L1STD } from '../../../spec/l1std.ts';
import { slotValue, type Words } from '../../../spec/layout.ts';
import { CR0, CR2, STRTAB_BASE } from '../../../spec/registers.ts';
import { STE } from '../../../spec/ste.ts';
import {
  CMDQV_CMDQ_ALLOC,
  CMDQV_MAX_SIDS,
  VINTF_BLOCK_STRIDE,
  VINTF_SID_MATCH,
  vintfBlock,
} from '../../../spec/tegra241.ts';
import type { OwnershipNote } from '../../driver/kernel.ts';
import type { Announcement, AtsAct, CommandAct, UpdateAct, VcmdqAct, VintfAct } from '../../hw/observer.ts';
import type { Smmu } from '../../hw/smmu.ts';
import type { Sanitizer } from '../../sanitizer/index.ts';
import { Peek, unitOf } from '../../sanitizer/units.ts';
import type { Lab } from '../lab.ts';
import { FEATURE, type Features } from './features.ts';
import { CMDQV_STATES, MODES, VMID_STATES } from './lists.ts';

const STATES = VMID_STATES.length;
const OPCODES = 256;

/** Counters of a campaign, by small numbers. */
export class Counters {
  /** By opcode. */
  readonly commands = new Float64Array(OPCODES);
  /** CMD_CFGI_ALL is a CMD_CFGI_STE_RANGE. */
  cfgiAll = 0;
  /** By event number. */
  readonly events = new Float64Array(OPCODES);
  /** By mode before * {@link MODES} + mode after. */
  readonly modes = new Float64Array(MODES.length ** 2);
  /** By state before * states + state after. */
  readonly vmids = new Float64Array(STATES ** 2);
  /** By place in {@link CMDQV_STATES}. */
  readonly cmdqv = new Float64Array(CMDQV_STATES.length);
}

const RANGE = CMD_CFGI_STE_RANGE.slot('Range');
const RANGE_OPCODE = CMD_CFGI_STE_RANGE.opcode;
const STE_OPCODE = CMD_CFGI_STE.opcode;
const STE_LEAF = CMD_CFGI_STE.slot('Leaf');
const STE_SID = CMD_CFGI_STE.slot('StreamID');
const CD_OPCODE = CMD_CFGI_CD.opcode;
const CD_LEAF = CMD_CFGI_CD.slot('Leaf');
const S12_OPCODE = CMD_TLBI_S12_VMALL.opcode;
const NSNH_OPCODE = CMD_TLBI_NSNH_ALL.opcode;
const SYNC_OPCODE = CMD_SYNC.opcode;
const EVENT = C_BAD_STE.slot('EventNumber');
const SMMUEN = 1 << CR0.fields.SMMUEN.bits[0];
const V = STE.slot('V');
const CONFIG = STE.slot('Config');
const CONT = STE.slot('CONT');
const EATS = STE.slot('EATS');
const S2S = STE.slot('S2S');
/** S1ContextPtr spans two halves; the low one tells the tables of a lab apart. */
const [, TABLE_BIT] = STE.fields.S1ContextPtr.bits;
const SPAN = L1STD.slot('Span');
const CONFIGS = STE.fields.Config.values;
/** Mode by STE.Config. */
const MODE_OF: ReadonlyMap<number, number> = new Map([
  [CONFIGS.ABORT, 0],
  [CONFIGS.BYPASS, 1],
  [CONFIGS.S1_TRANS, 2],
  [CONFIGS.S2_TRANS, 3],
  [CONFIGS.NESTED, 4],
]);
const S1 = 2;
const NESTED = 4;
const STATE_OF: ReadonlyMap<string, number> = new Map(VMID_STATES.map((state, i) => [state, i]));
const FREE = STATE_OF.get('FREE') ?? 0;
const INSTALLED = STATE_OF.get('INSTALLED') ?? 0;
/** A mode that nobody has looked at. */
const UNKNOWN = -1;
const UNIT_WORDS = 2;

/** VINTF 0 is the host's. */
const HOST_QUEUE = 'vcmdq0.';
/** Whether a command of a VCMDQ is a VM's: then it is confined. */
const ofVm = ({ queue }: CommandAct): boolean => !queue.startsWith(HOST_QUEUE);

/** What is remembered of one stream. */
interface Stream {
  mode: number;
  valid: boolean;
  /** Low part of S1ContextPtr; 0 without stage 1. */
  table: number;
}

/** What is remembered of one VMID. */
interface Vmid {
  state: number;
  users: number;
  /** Allocated and not installed yet: its number may have had another life, which the sanitizer does not forget. */
  fresh: boolean;
}

/** What is remembered of one SMMU. */
class One {
  readonly smmu: Smmu;
  readonly streams = new Map<number, Stream>();
  /** VMIDs that were announced, and where each stands. */
  readonly vmids = new Map<number, Vmid>();
  /** Something was consumed that moves VMIDs; the next CMD_SYNC completes it. */
  pending = false;

  constructor(smmu: Smmu) {
    this.smmu = smmu;
  }
}

/** See the module comment. One for each machine. */
export class Watch {
  readonly #counters: Counters;
  readonly #seen: Features;
  readonly #peek: Peek;
  readonly #smmus = new Map<string, One>();
  readonly #sanitizer: Sanitizer | undefined;
  readonly #ste: Words = new Uint32Array(STE.bytes / 4);
  readonly #std: Words = new Uint32Array(L1STD.bytes / 4);

  constructor({ machine, devices }: Lab, counters: Counters, seen: Features, sanitizer: Sanitizer | undefined) {
    this.#counters = counters;
    this.#seen = seen;
    this.#sanitizer = sanitizer;
    this.#peek = new Peek(machine.memory);
    for (const smmu of machine.smmus) this.#smmus.set(smmu.name, new One(smmu));
    for (const { smmu, sid } of devices) this.#look(this.#smmus.get(smmu), sid, true);
    const { watch } = machine;
    const before = watch.observer;
    const own = (act: Announcement): void => this.#observe(act);
    // What listens already comes first: the sanitizer has then judged the act.
    watch.observer =
      before === null
        ? own
        : (act) => {
            before(act);
            own(act);
          };
  }

  /** An ownership announcement. */
  readonly note = ({ what, act, where, id, owner }: OwnershipNote): void => {
    const seen = this.#seen;
    if (what === 'page') {
      if (act === 'free') seen[FEATURE['page free']] = 1;
    } else if (what === 'asid') seen[act === 'free' ? FEATURE['ASID free'] : FEATURE['ASID alloc']] = 1;
    else if (what === 'vmid') {
      seen[act === 'free' ? FEATURE['VMID free'] : FEATURE['VMID alloc']] = 1;
      const one = this.#smmus.get(where);
      if (one === undefined) return;
      const v = Number(id);
      const known = one.vmids.get(v) ?? { state: FREE, users: 0, fresh: false };
      known.fresh = act === 'alloc';
      one.vmids.set(v, known);
      this.#pollVmids(one);
    } else if (what === 'stream') seen[act === 'free' ? FEATURE['stream back'] : FEATURE['stream given']] = 1;
    else if (act === 'done') {
      seen[FEATURE['operation done']] = 1;
      if (owner.startsWith('unmap')) seen[FEATURE['unmap done']] = 1;
      else if (owner.startsWith('detach')) seen[FEATURE['detach done']] = 1;
    } else if (act === 'fail') seen[FEATURE['operation failed']] = 1;
  };

  #observe(act: Announcement): void {
    switch (act.kind) {
      case 'command':
        this.#command(act);
        return;
      case 'register-write':
        if (act.offset === CR2.offset) this.#seen[FEATURE['CR2 written']] = 1;
        else if (act.offset === STRTAB_BASE.offset) this.#seen[FEATURE['Stream table set']] = 1;
        return;
      case 'event':
        this.#event(act.words);
        return;
      case 'update':
        this.#update(act);
        return;
      case 'ats':
        this.#ats(act);
        return;
      case 'pri':
        this.#seen[FEATURE['page request']] = 1;
        return;
      case 'stalled':
        this.#seen[FEATURE.stall] = 1;
        return;
      case 'command-error':
        this.#seen[FEATURE['command error']] = 1;
        if (act.fetched !== undefined && ofVm(act)) this.#cmdqv('command error of a VM');
        return;
      case 'cmdqv-write':
        this.#cmdqvWrite(act.offset);
        return;
      case 'vintf':
        this.#vintf(act);
        return;
      case 'vcmdq':
        this.#vcmdq(act);
        return;
      case 'cmdqv-unmapped':
        this.#cmdqv('access to a slot without VCMDQ');
        return;
    }
  }

  #command(act: CommandAct): void {
    const { smmu, words, fetched } = act;
    const opcode = opcodeOf(words);
    this.#counters.commands[opcode] = (this.#counters.commands[opcode] ?? 0) + 1;
    this.#seen[opcode] = 1;
    if (fetched !== undefined && ofVm(act)) this.#cmdqv('command of a VM');
    const one = this.#smmus.get(smmu);
    if (one === undefined) return;
    if (opcode === SYNC_OPCODE) {
      if (!one.pending) return;
      one.pending = false;
      this.#pollVmids(one);
    } else if (opcode === STE_OPCODE) {
      if (slotValue(words, STE_LEAF) === 0) this.#seen[FEATURE['CFGI without Leaf']] = 1;
      one.pending = true;
      this.#look(one, slotValue(words, STE_SID));
      this.#pollVmids(one);
    } else if (opcode === RANGE_OPCODE) {
      if (slotValue(words, RANGE) === CFGI_ALL_RANGE) {
        this.#counters.cfgiAll++;
        this.#seen[FEATURE.CFGI_ALL] = 1;
      }
      one.pending = true;
      for (const sid of one.streams.keys()) this.#look(one, sid);
      this.#pollVmids(one);
    } else if (opcode === S12_OPCODE || opcode === NSNH_OPCODE) {
      // It counts when it has completed.
      one.pending = true;
    } else if (opcode === CD_OPCODE && slotValue(words, CD_LEAF) === 0) this.#seen[FEATURE['CFGI without Leaf']] = 1;
  }

  #event(words: Words): void {
    const number = slotValue(words, EVENT);
    this.#counters.events[number] = (this.#counters.events[number] ?? 0) + 1;
  }

  #update({ register, before, after }: UpdateAct): void {
    if (register === 'GBPA') this.#seen[FEATURE['GBPA set']] = 1;
    if (register !== 'CR0' || ((before ^ after) & SMMUEN) === 0) return;
    this.#seen[(after & SMMUEN) === 0 ? FEATURE['SMMUEN cleared'] : FEATURE['SMMUEN set']] = 1;
  }

  #ats({ message }: AtsAct): void {
    if (message === 'enabled') this.#seen[FEATURE['ATS on']] = 1;
    else if (message === 'disabled') this.#seen[FEATURE['ATS off']] = 1;
    else if (message === 'invalidate-timeout') this.#seen[FEATURE['ATC_INV timeout']] = 1;
    else if (message === 'translation-request') this.#seen[FEATURE['translation request']] = 1;
  }

  #cmdqv(name: (typeof CMDQV_STATES)[number]): void {
    const i = CMDQV_STATES.indexOf(name);
    this.#counters.cmdqv[i] = (this.#counters.cmdqv[i] ?? 0) + 1;
  }

  #cmdqvWrite(offset: number): void {
    const first = vintfBlock(0);
    if (offset < first) {
      if (offset >= CMDQV_CMDQ_ALLOC.offset) this.#seen[FEATURE['CMDQ_ALLOC written']] = 1;
      return;
    }
    const at = ((offset - first) % VINTF_BLOCK_STRIDE) - VINTF_SID_MATCH.offset;
    if (offset >= vintfBlock(this.#smmus.size + CMDQV_MAX_SIDS) || at < 0 || at >= 4 * CMDQV_MAX_SIDS) return;
    this.#seen[FEATURE['SID pair written']] = 1;
    this.#cmdqv('SID pair written');
  }

  #vintf({ enabled, HYP_OWN }: VintfAct): void {
    const seen = this.#seen;
    if (!enabled) {
      seen[FEATURE['VINTF off']] = 1;
      this.#cmdqv('VINTF disabled');
    } else if (HYP_OWN) this.#cmdqv('VINTF of the host enabled');
    else {
      seen[FEATURE["VM's VINTF on"]] = 1;
      this.#cmdqv('VINTF of a VM enabled');
    }
  }

  #vcmdq({ act }: VcmdqAct): void {
    this.#seen[FEATURE[`VCMDQ ${act}`]] = 1;
    this.#cmdqv(`VCMDQ ${act}`);
  }

  /** Where each announced VMID of an SMMU stands now. */
  #pollVmids({ smmu: { name }, vmids }: One): void {
    const sanitizer = this.#sanitizer;
    if (sanitizer === undefined) return;
    const { vmids: counts } = this.#counters;
    for (const [v, at] of vmids) {
      const now = sanitizer.vmidState(name, v);
      if (now === 'INSTALLED') at.fresh = false;
      const state = STATE_OF.get(at.fresh && now === 'CLEAN' ? 'ALLOCATED' : now) ?? FREE;
      const users = state === INSTALLED ? sanitizer.vmidUsers(name, v).length : 0;
      if (users > 1) this.#seen[FEATURE['VMID shared']] = 1;
      if (state !== at.state || users > at.users) {
        const i = at.state * STATES + state;
        counts[i] = (counts[i] ?? 0) + 1;
      }
      at.state = state;
      at.users = users;
      // A number that is free has no more to tell until it is announced again.
      if (state === FREE) vmids.delete(v);
    }
  }

  /** The mode of a stream, now that its STE is being invalidated, or at first. */
  #look(one: One | undefined, sid: number, first = false): void {
    if (one === undefined) return;
    const ste = this.#ste;
    const stream = one.streams.get(sid) ?? { mode: UNKNOWN, valid: false, table: 0 };
    one.streams.set(sid, stream);
    if (!this.#load(one.smmu, sid)) return;
    const seen = this.#seen;
    const valid = slotValue(ste, V) === 1;
    if (valid) {
      if (!first) seen[stream.valid ? FEATURE['STE replaced'] : FEATURE['STE made valid']] = 1;
      const mode = MODE_OF.get(slotValue(ste, CONFIG)) ?? UNKNOWN;
      if (mode !== UNKNOWN && stream.mode !== UNKNOWN && mode !== stream.mode) {
        const i = stream.mode * MODES.length + mode;
        this.#counters.modes[i] = (this.#counters.modes[i] ?? 0) + 1;
      }
      stream.mode = mode;
      this.#lookClose(one, stream);
    }
    stream.valid = valid;
  }

  /** What else rules look at. */
  #lookClose(one: One, stream: Stream): void {
    const ste = this.#ste;
    const seen = this.#seen;
    const { mode } = stream;
    seen[FEATURE[`mode ${MODES[mode] ?? 'abort'}`]] = 1;
    if (slotValue(ste, EATS) !== 0) seen[FEATURE.EATS] = 1;
    if (slotValue(ste, S2S) !== 0) seen[FEATURE.S2S] = 1;
    if (slotValue(ste, CONT) !== 0) seen[FEATURE.CONT] = 1;
    stream.table = mode === S1 || mode === NESTED ? (ste[TABLE_BIT >>> 5] ?? 0) >>> (TABLE_BIT % 32) : 0;
    if (stream.table === 0) return;
    for (const other of one.streams.values())
      if (other !== stream && other.table === stream.table && other.mode === mode) seen[FEATURE['CD table shared']] = 1;
  }

  /** Reads the STE of a stream as the registers lead to it; false: there is none. */
  #load({ regs, caps }: Smmu, sid: number): boolean {
    const size = Math.min(regs.LOG2SIZE, caps.SIDSIZE);
    if (sid >= 2 ** size) return false;
    let unit = unitOf(regs.strtabHi, regs.strtabLo);
    let at = sid;
    if (regs.twoLevel && caps.ST_LEVEL !== 0) {
      const { SPLIT } = regs;
      if (!this.#peek.words(unit + (sid >>> SPLIT) * (L1STD.bytes / 8), this.#std)) return false;
      const span = slotValue(this.#std, SPAN);
      at = sid & (2 ** SPLIT - 1);
      if (span === 0 || at >= 2 ** (span - 1)) return false;
      unit = Number(L1STD.address(this.#std, 'L2Ptr') >> 3n);
    }
    return this.#peek.words(unit + at * (this.#ste.length / UNIT_WORDS), this.#ste);
  }
}
