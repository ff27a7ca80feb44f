/**
 * The kernel that driver, iommu core and iommufd run on here: memory, ids, locks, MMIO, polls and interrupts on one
 * bus. Every use has a name; a test can make the nth use of a name fail, or act at it.
 */
import type { Bus, Pa } from '../hw/bus.ts';
import {
  type Errno,
  type IdAllocator,
  type Kernel,
  KernelError,
  type Lock,
  type OwnershipNote,
  type Point,
} from './kernel.ts';
import { LowestFree } from './lowest-free.ts';
import { PageAllocator } from './page-allocator.ts';

/** One line of the kernel log. */
export interface LogLine {
  readonly level: 'err' | 'warn' | 'info';
  readonly text: string;
}

/** How a {@link LocalKernel} behaves where a kernel leaves a choice. */
export interface LocalKernelOptions {
  /** Turns of a polling loop before it times out; stands for the kernel's second. Default 10,000. */
  readonly pollTurns?: number;
  /** Whether mmio points are announced to listeners of {@link LocalKernel.onPoint}. Default true. */
  readonly mmioPoints?: boolean;
  /** Which freed page is handed out again first. Default 'lowest'; 'latest' is what Linux's per-CPU lists do. */
  readonly pageReuse?: 'lowest' | 'latest';
}

/** A planned failure: see {@link LocalKernel.failNth}. */
export interface PlannedFailure {
  readonly prefix: string;
  /** Uses still to go before it fires. */
  left: number;
  /** The point where it fired. */
  fired: Point | null;
}

class LocalLock implements Lock {
  readonly name: string;
  held = false;
  constructor(name: string) {
    this.name = name;
  }
}

/** Lowest free first. */
class LocalIds implements IdAllocator {
  readonly name: string;
  readonly #kernel: LocalKernel;
  readonly #min: number;
  readonly #max: number;
  readonly #exhausted: Errno;
  readonly #ids: LowestFree;

  constructor(kernel: LocalKernel, name: string, min: number, max: number, exhausted: Errno) {
    this.#kernel = kernel;
    this.name = name;
    this.#min = min;
    this.#max = max;
    this.#exhausted = exhausted;
    this.#ids = new LowestFree(min);
  }

  alloc(): number {
    this.#kernel.mayFail('ids', this.name, 'ENOMEM');
    if (this.#ids.peek() > this.#max)
      throw new KernelError(this.#exhausted, `no ${this.name} left in ${this.#min}..${this.#max}`);
    const id = this.#ids.take();
    this.#announce('alloc', id);
    return id;
  }

  reserve(id: number): boolean {
    if (id > this.#max || !this.#ids.takeAt(id)) return false;
    this.#announce('give', id);
    return true;
  }

  free(id: number): void {
    if (!this.#ids.give(id)) throw new Error(`${this.name} ${id} is not allocated`);
    this.#announce('free', id);
  }

  /** Tags of the TLB have owners that a listener wants to know. */
  #announce(act: 'alloc' | 'give' | 'free', id: number): void {
    if (this.name === 'asid') this.#kernel.announce({ what: 'asid', act, where: '', id: BigInt(id), owner: this.name });
  }

  has(id: number): boolean {
    return this.#ids.has(id);
  }

  get used(): number {
    return this.#ids.used;
  }
}

interface Handler {
  readonly run: () => void;
  readonly hard: boolean;
  pending: boolean;
  /** Its kernel runs no more. */
  gone: boolean;
}

/** See the module comment. */
export class LocalKernel implements Kernel {
  readonly bus: Bus;
  /** Everything logged, oldest first. */
  readonly messages: LogLine[] = [];
  readonly #pages: PageAllocator;
  readonly #turns: number;
  readonly #mmioPoints: boolean;
  readonly #failures: PlannedFailure[] = [];
  readonly #handlers: Handler[] = [];
  readonly #points = new Set<(point: Point) => void>();
  readonly #notes = new Set<(note: OwnershipNote) => void>();
  /** Told of each planned failure that fires, with its point. */
  onFailure: ((point: Point) => void) | null = null;
  #lockDepth = 0;
  #running = false;
  #runningHard = false;
  /** Handlers with an edge noted. */
  #edges = 0;

  constructor(bus: Bus, options: LocalKernelOptions = {}) {
    this.bus = bus;
    this.#pages = new PageAllocator(bus, options.pageReuse);
    this.#turns = options.pollTurns ?? 10_000;
    this.#mmioPoints = options.mmioPoints ?? true;
  }

  /**
   * Makes the nth use (1 is the next) of a point whose name begins with `prefix` fail, once. Names: `alloc:` (memory),
   * `ids:`, `copy:` (user memory), `poll:` (the poll times out without a look at the hardware).
   */
  failNth(nth: number, prefix: string): PlannedFailure {
    const plan: PlannedFailure = { prefix, left: nth, fired: null };
    this.#failures.push(plan);
    return plan;
  }

  /** Forgets planned failures that have not fired. */
  clearFailures(): void {
    this.#failures.length = 0;
  }

  /** Calls `listener` at each point: lock acquired and released, allocation, MMIO, barrier. Returns how to stop it. */
  onPoint(listener: (point: Point) => void): () => void {
    this.#points.add(listener);
    return () => this.#points.delete(listener);
  }

  /** Calls `listener` with each ownership note. Returns how to stop it. */
  onNote(listener: (note: OwnershipNote) => void): () => void {
    this.#notes.add(listener);
    return () => this.#notes.delete(listener);
  }

  /** Allocations of pages not given back: what a leak check compares. */
  get pagesUsed(): number {
    return this.#pages.used;
  }

  /** Their addresses, ascending. */
  get pagesTaken(): Pa[] {
    return this.#pages.taken;
  }

  point(point: Point): void {
    for (const listener of this.#points) listener(point);
  }

  /** Nobody listens to points and no failure is planned: a use needs no name. */
  get #quiet(): boolean {
    return this.#points.size === 0 && this.#failures.length === 0;
  }

  /**
   * Throws if a failure is planned for this use of the point `kind:name`.
   * @throws KernelError with the errno given
   */
  mayFail(kind: string, name: string, errno: Errno): void {
    if (this.#quiet) return;
    const point = `${kind}:${name}`;
    this.point(point);
    if (this.#fails(point)) throw new KernelError(errno, `${point} was told to fail`);
  }

  #fails(point: Point): boolean {
    if (this.#failures.length === 0) return false;
    let fails = false;
    for (const plan of this.#failures) {
      if (plan.fired !== null || !point.startsWith(plan.prefix)) continue;
      plan.left--;
      if (plan.left > 0) continue;
      plan.fired = point;
      this.onFailure?.(point);
      fails = true;
    }
    return fails;
  }

  allocPages(what: string, bytes: number): Pa {
    this.mayFail('alloc', what, 'ENOMEM');
    const pa = this.#pages.alloc(bytes);
    if (pa === undefined) throw new KernelError('ENOMEM', `no ${bytes} contiguous bytes left for ${what}`);
    this.announce({ what: 'page', act: 'alloc', where: '', id: pa, owner: what, bytes });
    return pa;
  }

  freePages(what: string, pa: Pa): void {
    this.announce({ what: 'page', act: 'free', where: '', id: pa, owner: what });
    this.#pages.free(pa);
  }

  alloc(what: string): void {
    this.mayFail('alloc', what, 'ENOMEM');
  }

  ids(name: string, min: number, max: number, exhausted: Errno = 'ENOSPC'): IdAllocator {
    return new LocalIds(this, name, min, max, exhausted);
  }

  lock(name: string): Lock {
    return new LocalLock(name);
  }

  withLock<T>(lock: Lock, body: () => T): T {
    if (!(lock instanceof LocalLock)) throw new Error(`lock ${lock.name} is not this kernel's`);
    if (lock.held) throw new Error(`deadlock: ${lock.name} is held already`);
    this.#named('lock', lock.name);
    lock.held = true;
    this.#lockDepth++;
    try {
      return body();
    } finally {
      lock.held = false;
      this.#lockDepth--;
      this.bus.mb();
      this.#named('unlock', lock.name);
      this.runInterrupts();
    }
  }

  #named(kind: string, name: string): void {
    if (this.#points.size > 0) this.point(`${kind}:${name}`);
  }

  #mmio(point: Point): void {
    if (this.#mmioPoints) this.#named('mmio', point);
  }

  read32(point: Point, addr: Pa): number {
    this.#mmio(point);
    return this.bus.readl(addr);
  }

  read64(point: Point, addr: Pa): bigint {
    this.#mmio(point);
    return this.bus.readq(addr);
  }

  write32(point: Point, addr: Pa, value: number): void {
    this.#mmio(point);
    this.bus.writel(addr, value);
  }

  write64(point: Point, addr: Pa, value: bigint): void {
    this.#mmio(point);
    this.bus.writeq(addr, value);
  }

  write32Relaxed(point: Point, addr: Pa, value: number): void {
    this.#mmio(point);
    this.bus.writelRelaxed(addr, value);
  }

  write64Relaxed(point: Point, addr: Pa, value: bigint): void {
    this.#mmio(point);
    this.bus.writeqRelaxed(addr, value);
  }

  dmaWmb(point: Point): void {
    this.#named('barrier', point);
    this.bus.dmaWmb();
  }

  dmaRmb(point: Point): void {
    this.#named('barrier', point);
    this.bus.dmaRmb();
  }

  mb(point: Point): void {
    this.#named('barrier', point);
    this.bus.mb();
  }

  poll(point: Point, done: () => boolean): boolean {
    this.#named('poll', point);
    if (this.#failures.length > 0 && this.#fails(`poll:${point}`)) return false;
    for (let turn = 0; turn < this.#turns; turn++) {
      if (done()) return true;
      this.#runHard();
      this.bus.cpuRelax();
    }
    return done();
  }

  userCopy(point: Point): void {
    this.mayFail('copy', point, 'EFAULT');
  }

  requestIrq(_name: string, irq: number, run: () => void, kind: 'hard' | 'threaded' = 'threaded'): void {
    const handler: Handler = { run, hard: kind === 'hard', pending: false, gone: false };
    this.#handlers.push(handler);
    this.bus.onInterrupt(irq, () => {
      if (handler.gone) return;
      if (!handler.pending) this.#edges++;
      handler.pending = true;
    });
  }

  runInterrupts(): void {
    if (this.#edges === 0) return;
    this.#runHard();
    if (this.#lockDepth > 0 || this.#running) return;
    this.#running = true;
    try {
      for (let next = this.#pending(); next !== undefined; next = this.#pending()) this.#run(next);
    } finally {
      this.#running = false;
    }
  }

  /**
   * Another kernel runs on the machine from now on: the handlers of this one are gone, and failures that were planned for
   * it. Memory that it had stays taken: hardware may still use it.
   */
  handOver(): void {
    for (const handler of this.#handlers) handler.gone = true;
    this.#handlers.length = 0;
    this.#edges = 0;
    this.clearFailures();
  }

  #pending(): Handler | undefined {
    return this.#handlers.find((handler) => handler.pending);
  }

  #run(handler: Handler): void {
    handler.pending = false;
    this.#edges--;
    handler.run();
  }

  #runHard(): void {
    if (this.#runningHard || this.#edges === 0) return;
    this.#runningHard = true;
    try {
      for (const handler of this.#handlers) if (handler.hard && handler.pending) this.#run(handler);
    } finally {
      this.#runningHard = false;
    }
  }

  log(level: LogLine['level'], text: string): void {
    this.messages.push({ level, text });
  }

  announce(note: OwnershipNote): void {
    if (this.#notes.size === 0) return;
    for (const listener of this.#notes) listener(note);
  }
}
