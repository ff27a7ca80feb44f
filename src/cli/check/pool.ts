/** Who makes the runs of a task: the process itself, or worker threads, each for itself. Answers do not tell which. */
import { Worker } from 'node:worker_threads';
import { CaseError } from '../../testing/lab.ts';
import { CliError } from '../error.ts';
import { type Answers, type Kind, Performer, type RequestOf } from './performer.ts';
import type { Task } from './task.ts';

/** See the module comment. */
export interface Pool {
  /** Requests that are worked on at once. */
  readonly size: number;
  /** @throws what the performer throws */
  ask<K extends Kind>(request: RequestOf<K>): Promise<Answers[K]>;
  /** Ends it; what is under way is dropped. */
  close(): Promise<void>;
}

/** What a worker sends back. `kind` of an error: what is thrown here. */
export type Reply =
  | { readonly answer: Answers[Kind] }
  | { readonly error: { readonly kind: 'cli' | 'case' | 'internal'; readonly message: string } };

const ERRORS = { cli: CliError, case: CaseError, internal: Error } as const;

/** The process itself. */
class Here implements Pool {
  readonly size = 1;
  readonly #performer: Performer;

  constructor(performer: Performer) {
    this.#performer = performer;
  }

  async ask<K extends Kind>(request: RequestOf<K>): Promise<Answers[K]> {
    return this.#performer.perform(request);
  }

  async close(): Promise<void> {}
}

interface Waiting {
  readonly request: RequestOf<Kind>;
  readonly resolve: (answer: Answers[Kind]) => void;
  readonly reject: (error: Error) => void;
}

/** One worker has one request at a time; the others wait in order. */
class Threads implements Pool {
  readonly size: number;
  readonly #workers: readonly Worker[];
  readonly #idle: Worker[];
  readonly #waiting: Waiting[] = [];
  readonly #busy = new Map<Worker, Waiting>();
  #broken: Error | null = null;
  #closed = false;

  constructor(task: Task, size: number) {
    this.size = size;
    // The module beside this one: with the same ending, whether it is built or not.
    const file = new URL(import.meta.url.replace(/pool(\.[jt]s)$/, 'worker$1'));
    this.#workers = Array.from({ length: size }, () => new Worker(file, { workerData: task }));
    this.#idle = [...this.#workers];
    for (const worker of this.#workers) {
      worker.on('message', (reply: Reply) => this.#reply(worker, reply));
      worker.on('error', (error) => this.#break(error));
      worker.on('exit', (code) => this.#break(new Error(`a worker ended with code ${code}`)));
    }
  }

  ask<K extends Kind>(request: RequestOf<K>): Promise<Answers[K]> {
    return new Promise((resolve, reject) => {
      if (this.#broken !== null) return reject(this.#broken);
      const waiting = { request, resolve: resolve as Waiting['resolve'], reject };
      // A case to shrink is what everybody waits for: it comes before runs.
      if (request.kind === 'scan' || request.kind === 'hunt') this.#waiting.push(waiting);
      else this.#waiting.unshift(waiting);
      this.#next();
    });
  }

  #next(): void {
    const worker = this.#waiting.length === 0 ? undefined : this.#idle.pop();
    const waiting = worker === undefined ? undefined : this.#waiting.shift();
    if (worker === undefined || waiting === undefined) return;
    this.#busy.set(worker, waiting);
    worker.postMessage(waiting.request);
  }

  #reply(worker: Worker, reply: Reply): void {
    const waiting = this.#busy.get(worker);
    this.#busy.delete(worker);
    this.#idle.push(worker);
    if ('answer' in reply) waiting?.resolve(reply.answer);
    else waiting?.reject(new ERRORS[reply.error.kind](reply.error.message));
    this.#next();
  }

  #break(error: Error): void {
    if (this.#closed) return;
    this.#broken = error;
    for (const { reject } of [...this.#busy.values(), ...this.#waiting]) reject(error);
    this.#busy.clear();
    this.#waiting.length = 0;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }
}

/** Makes a pool of so many workers; 1: none, the process itself. @throws CliError, CaseError as {@link Performer.of} */
async function poolOf(task: Task, workers: number): Promise<Pool> {
  return workers === 1 ? new Here(await Performer.of(task)) : new Threads(task, workers);
}

/** Does something with a pool, and ends it. */
export async function withPool<T>(task: Task, workers: number, use: (pool: Pool) => Promise<T>): Promise<T> {
  const pool = await poolOf(task, workers);
  try {
    return await use(pool);
  } finally {
    await pool.close();
  }
}
