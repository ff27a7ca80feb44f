/**
 * Isolation as a theorem to attack: two runs that differ only in what VM 0 controls (its vSTEs, its tables and CDs, its
 * commands, its VCMDQs and their registers, its devices with their ATCs) give VM 1, at each of its own operations, the same
 * result: errno, id, data, physical address and attributes, abort or stall, what it reads of registers and queues; and the
 * same events for its streams. Not part of it: counters, the timing of shared caches, and STAGs, which hardware chooses.
 *
 * A run in which a shared queue overflowed, or in which a shared resource ran out for VM 1, is counted apart: results may
 * differ then. In every run each access of a device ends in memory of its own VM, or nowhere.
 */
import { C_BAD_STE, EVENT_BYTES, F_TRANSLATION, type Words } from '../../../spec/index.ts';
import type { Observer } from '../../hw/observer.ts';
import { Access, Outcome, type Transaction } from '../../hw/transaction.ts';
import { twinCase, vmOf } from '../arbitraries/twins.ts';
import { type Finding, type LabCase, makeLab, type RunOptions, type RunResult, type StepRecord } from '../case.ts';
import { CaseError, Lab } from '../lab.ts';
import type { Operation, OperationResult } from '../operation.ts';
import { execute } from '../operations.ts';
import type { Property } from '../property.ts';
import { withoutStacks } from '../stacks.ts';
import { operationText } from '../story.ts';

const RULE = 'isolation';
/** The VM that watches. */
const OBSERVER = 1;

/** Why a run is counted apart. */
type Apart = 'overflow' | 'exhausted';

/** Errnos of a resource that has run out. */
const EXHAUSTED: ReadonlySet<string> = new Set(['ENOSPC', 'ENOMEM']);

/** What one run gave the observing VM: by number of the step. */
interface Observed {
  readonly steps: readonly StepRecord[];
  readonly seen: ReadonlyMap<number, string>;
  /** A shared queue overflowed. */
  readonly overflow: boolean;
  /** A stall of VM 1 found no STAG. */
  readonly held: boolean;
  /** What no run may do: a step that throws what no kernel function returns, an access that left its VM's memory. */
  readonly finding: Finding | null;
}

const outcomeName = (outcome: number): string =>
  Object.entries(Outcome).find(([, value]) => value === outcome)?.[0] ?? '';
const accessName = (access: number): string => Object.entries(Access).find(([, value]) => value === access)?.[0] ?? '';

const hexOf = (hi: number, lo: number): string => `0x${((BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0)).toString(16)}`;

/** What an endpoint gets of a transaction, and what the memory system gets with it. */
function transactionText({ access, outcome, paHi, paLo, memAttr, SH, alloc, PARTID, PMG }: Transaction): string {
  if (outcome !== Outcome.Ok) return outcomeName(outcome);
  const attributes = `memAttr ${memAttr} SH ${SH} alloc ${alloc} PARTID ${PARTID} PMG ${PMG}`;
  return `${accessName(access)} to ${hexOf(paHi, paLo)} ${attributes}`;
}

/** Watches the hardware of one run. */
class Eyes {
  lab: Lab | null = null;
  overflow = false;
  /** A stall of VM 1 was held back without a record: STAGs, or the Event queue, were all taken. */
  held = false;
  /** An access that left its VM's memory, in a sentence. */
  escaped: string | null = null;
  readonly #vms = new Map<string, number>();
  /** Streams whose next transaction is a retry: when it comes is the hardware's choice. */
  readonly #retries = new Set<string>();
  #transactions: string[] = [];
  /** By stream: events of two streams, which may be of two SMMUs, have no order. */
  readonly #events = new Map<string, string[]>();
  readonly #stalls = new Set<string>();

  /** The lab is made: devices take turns among the VMs. */
  open(lab: Lab): void {
    this.lab = lab;
    for (const [i, { smmu, sid }] of lab.devices.entries()) this.#vms.set(`${smmu} ${sid}`, i % lab.guests.length);
  }

  readonly observe: Observer = (act) => {
    switch (act.kind) {
      case 'event':
        if (act.result === 'overflow' || act.result === 'full') this.overflow = true;
        this.#event(act.smmu, act.words);
        break;
      case 'pri':
        if (act.result !== 'written') this.overflow = true;
        break;
      case 'stalled':
        if (act.STAG < 0 && this.#vms.get(`${act.smmu} ${act.StreamID}`) === OBSERVER) this.held = true;
        break;
      case 'retried':
        this.#retries.add(`${act.smmu} ${act.StreamID}`);
        break;
      case 'translation':
        if (!act.transaction.isSpeculative) this.#transaction(act.smmu, act.transaction);
        break;
    }
  };

  #event(smmu: string, words: Words): void {
    const stream = `${smmu} ${C_BAD_STE.num(words, 'StreamID')}`;
    if (this.#vms.get(stream) !== OBSERVER) return;
    const record = words.slice(0, EVENT_BYTES / 4);
    if (F_TRANSLATION.num(record, 'Stall') === 0) {
      this.#events.set(stream, [...(this.#events.get(stream) ?? []), recordText(record)]);
      return;
    }
    // A stalled transaction may be retried, and recorded, more than once.
    F_TRANSLATION.set(record, 'STAG', 0);
    this.#stalls.add(recordText(record));
  }

  #transaction(smmu: string, t: Transaction): void {
    const key = `${smmu} ${t.StreamID}`;
    const vm = this.#vms.get(key);
    const retry = this.#retries.delete(key);
    if (vm === undefined) return;
    if (t.outcome === Outcome.Ok && t.access !== Access.TranslationRequest) this.#contain(vm, key, t);
    if (vm === OBSERVER && !retry) this.#transactions.push(transactionText(t));
  }

  #contain(vm: number, stream: string, { paHi, paLo, isWrite }: Transaction): void {
    const { lab } = this;
    const pa = (BigInt(paHi >>> 0) << 32n) | BigInt(paLo >>> 0);
    if (lab === null || this.escaped !== null || lab.guests[vm]?.holdsPa(pa) === true) return;
    const whose = lab.guests.find((guest) => guest.holdsPa(pa))?.name ?? 'nobody';
    this.escaped = `a ${isWrite ? 'write' : 'read'} of vm${vm}'s stream ${stream} reached 0x${pa.toString(16)}, memory of ${whose}`;
  }

  /** Transactions of the observing VM since the last look. */
  takeTransactions(): string {
    const text = this.#transactions.join(', ');
    this.#transactions = [];
    return text;
  }

  /** Events of the observing VM. */
  get events(): string {
    const streams = [...this.#events].sort(([a], [b]) => (a < b ? -1 : 1));
    return [...streams.flatMap(([, events]) => events), ...this.#stalls].join('; ');
  }
}

const recordText = (words: Words): string => [...words].map((word) => word.toString(16)).join(' ');

/** What the observing VM, and its VMM, see of an operation of theirs. */
function outcomeText(lab: Lab, operation: Operation, result: OperationResult, transactions: string): string {
  const parts: string[] = [];
  if (result.status === 'error') parts.push(result.errno);
  else if (result.status === 'skipped') parts.push('skipped');
  else {
    const { dma, saw } = result;
    if ('as' in operation) parts.push(`id ${lab.handle(operation.as)?.id}`);
    if (saw !== undefined) parts.push(saw);
    if (dma !== undefined) parts.push(dma.vm === undefined ? dma.status : `page ${dma.page} of vm${dma.vm}`);
  }
  if (result.status !== 'skipped' && result.entries !== undefined) parts.push(`${result.entries} entries`);
  if (transactions !== '') parts.push(transactions);
  return parts.join(', ') || 'ok';
}

const NO_NOTES: StepRecord['notes'] = [];

/** Rounds of hardware and kernel after each operation, at most. */
const ROUNDS = 8;

/**
 * Nothing of an operation stays under way: hardware that has more to do draws more, and what VM 1 is told of its own
 * hardware in the middle of something would be a matter of what VM 0 left.
 */
function quiet({ machine, kernel, windows, guests }: Lab): void {
  for (let i = 0; i < ROUNDS; i++) {
    // Each guest's CPU is there from the first step on: one more is one more that may be drawn.
    for (const guest of guests) windows.cpu(guest).mb();
    kernel.mb('isolation');
    machine.drain();
    kernel.runInterrupts();
    if (machine.conductor.idle) return;
  }
}

/** When an access that stalled ends is a matter of time: what is seen of it is how it stands once all is quiet. */
function ended({ stalled }: Lab, operation: Operation, result: OperationResult): OperationResult {
  if (operation.op !== 'dma' || result.status !== 'ok' || result.dma?.status !== 'stall') return result;
  const at = stalled.findLastIndex(({ dev }) => dev === operation.dev);
  const end = stalled[at]?.end;
  if (end === undefined) return result;
  stalled.splice(at, 1);
  return { ...result, dma: end };
}

/** One of the two runs. */
function observe({ config, steps }: LabCase, mine: readonly boolean[], other: boolean, options: RunOptions): Observed {
  const eyes = new Eyes();
  const lab = makeLab(config, { ...options.extras, observer: eyes.observe });
  if (!(lab instanceof Lab))
    return { steps: [], seen: new Map(), overflow: false, held: eyes.held, finding: { ...lab, step: 0 } };
  eyes.open(lab);
  if (!other) options.coverage?.attach(lab, undefined, [isolation]);
  quiet(lab);
  const records: StepRecord[] = [];
  const seen = new Map<number, string>();
  const broken = (rule: string, message: string, i: number): Observed => ({
    steps: records,
    seen,
    overflow: eyes.overflow,
    held: eyes.held,
    finding: { rule, message, step: i + 1 },
  });
  for (const [i, step] of steps.entries()) {
    lab.machine.conductor.schedule.operation(`op ${step.id}`);
    const operation = other && step.twin !== undefined ? step.twin : step.operation;
    if (operation === null) continue;
    let result: OperationResult;
    try {
      result = withoutStacks(() => execute(lab, operation));
    } catch (error) {
      if (error instanceof CaseError) throw error;
      return broken('crash', `${operation.op} threw ${String(error)}`, i);
    }
    quiet(lab);
    result = ended(lab, operation, result);
    if (!other) options.coverage?.step(operation, result);
    records.push({ id: step.id, operation, result, notes: NO_NOTES });
    if (eyes.escaped !== null) return broken(RULE, eyes.escaped, i);
    const transactions = eyes.takeTransactions();
    if (mine[i] === true) seen.set(i, outcomeText(lab, operation, result, transactions));
  }
  seen.set(steps.length, eyes.events);
  return { steps: records, seen, overflow: eyes.overflow, held: eyes.held, finding: null };
}

/** Whether one of two results says that something has run out, and the other does not. */
const ranOut = (one: string, other: string): boolean => EXHAUSTED.has(one) !== EXHAUSTED.has(other);

/** What VM 1 can tell the runs apart by. */
function difference(one: LabCase, first: Observed, second: Observed): Finding | Apart | null {
  for (const [i, what] of first.seen) {
    const otherwise = second.seen.get(i) ?? '';
    if (otherwise === what) continue;
    if (ranOut(what, otherwise) || first.held !== second.held) return 'exhausted';
    const operation = one.steps[i]?.operation;
    const message =
      operation === undefined
        ? `vm${OBSERVER}'s events are "${what}" in one run and "${otherwise}" in the other`
        : `${operationText(operation)} gives vm${OBSERVER} ${what} in one run and ${otherwise} in the other`;
    return { rule: RULE, message: `${message}; they differ only in what vm0 controls`, step: i + 1 };
  }
  return null;
}

function run(one: LabCase, options: RunOptions): RunResult {
  options.coverage?.config(one.config);
  const mine = one.steps.map(({ operation }) => vmOf(operation) === OBSERVER);
  const first = observe(one, mine, false, options);
  const second = observe(one, mine, true, options);
  const result = { steps: first.steps, ops: first.steps.length + second.steps.length };
  for (const { finding, steps } of [first, second]) if (finding !== null) return { ...result, finding, steps };
  if (first.overflow || second.overflow) return { ...result, finding: null, apart: 'overflow' };
  const found = difference(one, first, second);
  return typeof found === 'string' ? { ...result, finding: null, apart: found } : { ...result, finding: found };
}

/** See the module comment. */
export const isolation: Property = {
  name: 'isolation',
  title: 'what VM 0 does with what it controls changes nothing that VM 1 can observe, and no device leaves its VM',
  foreign: true,
  cases: twinCase,
  run,
  monitor: () => ({}),
};
