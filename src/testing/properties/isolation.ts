/**
 * Isolation as a theorem to attack: two runs that differ only in what VM 0 controls (its vSTEs, guest tables, guest
 * commands, DMA) give VM 1, at each of its own operations, the same result: errno, id, data read, abort or stall; and the
 * same events for its streams. Counters and the timing of shared caches are not part of it. A run in which a shared queue
 * overflowed is not compared.
 */
import { C_BAD_STE, EVENT_BYTES, type Words } from '../../../spec/index.ts';
import type { Observer } from '../../hw/observer.ts';
import { twinCase, vmOf } from '../arbitraries/twins.ts';
import type { LabCase, RunOptions, RunResult, StepRecord } from '../case.ts';
import { CaseError, Lab } from '../lab.ts';
import { execute, type Operation, type OperationResult } from '../operations.ts';
import type { Property } from '../property.ts';
import { operationText } from '../story.ts';

const RULE = 'isolation';
/** The VM that watches. */
const OBSERVER = 1;

/** What one run gave the observing VM: by number of the step. */
interface Observed {
  readonly steps: readonly StepRecord[];
  readonly seen: ReadonlyMap<number, string>;
  /** A shared queue overflowed. */
  readonly overflow: boolean;
  /** A step threw what no kernel function returns. */
  readonly crash?: { readonly at: number; readonly message: string };
}

class Crash {
  readonly message: string;
  constructor(message: string) {
    this.message = message;
  }
}

function attempt(lab: Lab, operation: Operation): OperationResult | Crash {
  try {
    return execute(lab, operation);
  } catch (error) {
    if (error instanceof CaseError) throw error;
    return new Crash(`${operation.op} threw ${String(error)}`);
  }
}

/** Events of the StreamIDs of the observing VM, as text. */
class Events {
  #events: string[] = [];
  overflow = false;
  streams: ReadonlySet<string> = new Set();

  readonly observe: Observer = (act) => {
    if (act.kind !== 'event') return;
    if (act.result === 'overflow' || act.result === 'full') this.overflow = true;
    const sid = C_BAD_STE.num(act.words, 'StreamID');
    if (this.streams.has(`${act.smmu} ${sid}`)) this.#events.push(hex(act.words));
  };

  take(): string[] {
    const events = this.#events;
    this.#events = [];
    return events;
  }
}

const hex = (words: Words): string =>
  [...words.subarray(0, EVENT_BYTES / 4)].map((word) => word.toString(16)).join(' ');

function outcome(lab: Lab, operation: Operation, result: OperationResult): string {
  if (result.status === 'error') return result.errno;
  if (result.status === 'skipped') return 'skipped';
  const id = 'as' in operation ? `id ${lab.handle(operation.as)?.id}` : 'ok';
  const { dma } = result;
  if (dma === undefined) return id;
  return dma.vm === undefined ? dma.status : `page ${dma.page} of vm${dma.vm}`;
}

/** One of the two runs. */
function observe({ config, steps }: LabCase, other: boolean, options: RunOptions): Observed {
  const events = new Events();
  const lab = new Lab(config, { ...options.extras, observer: events.observe });
  events.streams = new Set(
    lab.devices.filter((_, i) => i % lab.guests.length === OBSERVER).map(({ smmu, sid }) => `${smmu} ${sid}`),
  );
  const records: StepRecord[] = [];
  const seen = new Map<number, string>();
  for (const [i, step] of steps.entries()) {
    lab.machine.conductor.schedule.operation(`op ${step.id}`);
    const operation = other && step.twin !== undefined ? step.twin : step.operation;
    if (operation === null) continue;
    const result = attempt(lab, operation);
    if (result instanceof Crash)
      return { steps: records, seen, overflow: false, crash: { at: i, message: result.message } };
    if (!other) options.coverage?.step(operation, result);
    records.push({ ...step, operation, result, notes: [] });
    if (vmOf(operation) === OBSERVER) seen.set(i, outcome(lab, operation, result));
  }
  lab.machine.drain();
  seen.set(steps.length, events.take().join('; '));
  return { steps: records, seen, overflow: events.overflow };
}

function run(one: LabCase, options: RunOptions): RunResult {
  options.coverage?.config(one.config);
  const first = observe(one, false, options);
  const second = observe(one, true, options);
  const ops = first.steps.length + second.steps.length;
  for (const { crash, steps } of [first, second])
    if (crash !== undefined)
      return { finding: { rule: 'crash', message: crash.message, step: crash.at + 1 }, steps, ops };
  if (first.overflow || second.overflow) return { finding: null, steps: first.steps, ops };
  for (const [i, what] of first.seen) {
    const otherwise = second.seen.get(i);
    if (otherwise === what) continue;
    const operation = one.steps[i]?.operation;
    const message =
      operation === undefined
        ? `vm${OBSERVER}'s events are "${what}" in one run and "${otherwise}" in the other`
        : `${operationText(operation)} gives vm${OBSERVER} ${what} in one run and ${otherwise} in the other`;
    return {
      finding: { rule: RULE, message: `${message}; they differ only in what vm0 controls`, step: i + 1 },
      steps: first.steps,
      ops,
    };
  }
  return { finding: null, steps: first.steps, ops };
}

/** See the module comment. */
export const isolation: Property = {
  name: 'isolation',
  title: 'what VM 0 does with what it controls changes nothing that VM 1 can observe',
  foreign: true,
  cases: twinCase,
  run,
  monitor: () => ({}),
};
