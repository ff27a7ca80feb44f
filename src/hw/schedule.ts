/**
 * When hardware does what it does by itself. A schedule is one function, `choose`; nothing else decides. Every draw
 * depends on the seed, the operation under way, who asks, and how many choices that one made in this operation; so a
 * removed operation leaves the draws of the others alone, and cases shrink.
 */

/** A choice that was made: who asked for what, among how many, and which. */
export interface Choice {
  readonly agent: string;
  readonly kind: string;
  readonly n: number;
  readonly pick: number;
}

/** A replay that does not fit the run it is replayed on. */
export class ScheduleError extends Error {
  override readonly name = 'ScheduleError';
}

/** `eager`: at once. `stepped`: only on step(). `seeded`: drawn. */
export type ScheduleMode = 'eager' | 'stepped' | 'seeded';

/** How to make a {@link Schedule}. */
export interface ScheduleConfig {
  readonly mode: ScheduleMode;
  /** Seed of the draws in `seeded`: an integer of 32 bits. Default 0. */
  readonly seed?: number;
  /** Choices to make again instead of drawing; when they are used up, the first alternative is taken. */
  readonly replay?: readonly Choice[];
  /** Choices kept for a replay at most; further ones are made but not kept. Default 200,000. */
  readonly recordLimit?: number;
}

const GOLDEN = 0x9e3779b9;

/** One round of a 32-bit integer hash (the finaliser of MurmurHash3). */
function mix(hash: number, value: number): number {
  let h = (Math.imul(hash ^ value, 0x85ebca6b) + GOLDEN) | 0;
  h = Math.imul(h ^ (h >>> 15), 0xc2b2ae35);
  return (h ^ (h >>> 13)) | 0;
}

/** Hash of a string, for seeds: FNV-1a. */
export function hashString(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  return h | 0;
}

/** An agent as far as its draws go. */
interface Drawer {
  readonly name: string;
  readonly hash: number;
  /** Draws made in the operation under way. */
  count: number;
  /** Hash of all that they depend on but the count. */
  start: number;
}

/** See the module comment. */
export class Schedule {
  readonly mode: ScheduleMode;
  readonly seed: number;
  readonly #replay: readonly Choice[] | undefined;
  readonly #recordLimit: number;
  readonly #record: Choice[] = [];
  readonly #agents = new Map<string, Drawer>();
  /** Who drew last: most draws come in rows. */
  #last: Drawer | null = null;
  #replayed = 0;
  #operation = 0;

  constructor(config: ScheduleConfig = { mode: 'eager' }) {
    this.mode = config.mode;
    this.seed = (config.seed ?? 0) | 0;
    this.#replay = config.replay;
    this.#recordLimit = config.recordLimit ?? 200_000;
  }

  /**
   * Says which operation is under way from now on. Draws until the next call depend on this id and not on what came
   * before.
   */
  operation(id: string): void {
    this.#operation = hashString(id);
    for (const agent of this.#agents.values()) this.#begin(agent);
  }

  /**
   * Picks one of `n` alternatives, 0 to n - 1. Without a seed (eager, stepped) always 0.
   * @param agent who asks, for example "smmu0.cmdq"
   */
  choose(agent: string, kind: string, n: number): number {
    if (this.mode !== 'seeded' || n < 2) return 0;
    const pick = this.#replay === undefined ? this.#draw(agent, n) : this.#again(this.#replay, agent, kind, n);
    if (this.#record.length < this.#recordLimit) this.#record.push({ agent, kind, n, pick });
    return pick;
  }

  /** The draws of an agent start anew, for the operation under way. */
  #begin(agent: Drawer): void {
    agent.count = 0;
    agent.start = mix(mix(mix(GOLDEN, this.seed), this.#operation), agent.hash);
  }

  #draw(name: string, n: number): number {
    let agent = this.#last?.name === name ? this.#last : this.#agents.get(name);
    if (agent === undefined) {
      agent = { name, hash: hashString(name), count: 0, start: 0 };
      this.#begin(agent);
      this.#agents.set(name, agent);
    }
    this.#last = agent;
    return (mix(agent.start, agent.count++) >>> 0) % n;
  }

  #again(replay: readonly Choice[], agent: string, kind: string, n: number): number {
    const choice = replay[this.#replayed];
    if (choice === undefined) return 0;
    if (choice.agent !== agent || choice.kind !== kind || choice.n !== n)
      throw new ScheduleError(
        `choice ${this.#replayed} is ${agent}:${kind} of ${n}, the recorded one ${choice.agent}:${choice.kind} of ${choice.n}`,
      );
    this.#replayed++;
    return choice.pick;
  }

  /** The choices made so far, for {@link ScheduleConfig.replay}. */
  get choices(): readonly Choice[] {
    return this.#record;
  }
}

/** A part of hardware that can do something by itself. */
export interface Agent {
  /** Unique in the machine: "smmu0.cmdq". */
  readonly name: string;
  /** Something is waiting to be done. */
  readonly ready: boolean;
  /** Does one thing. Called only while {@link ready}; a bounded number of calls makes it false. */
  act(): void;
}

/** Something hardware may do but never has to: prefetch, evict. Drawn in `seeded` only. */
export interface Speculator {
  readonly name: string;
  /** Does one such thing, drawing what from the schedule. */
  speculate(schedule: Schedule): void;
}

/** Agents of one block of hardware. They are asked at every moment, and most of the time none is ready. */
interface Group {
  readonly agents: readonly Agent[];
  /** Whether one of them is ready. */
  readonly busy: () => boolean;
}

/** Runs the agents of one machine as the schedule says. */
export class Conductor {
  readonly schedule: Schedule;
  readonly #groups: Group[] = [];
  readonly #speculators: Speculator[] = [];
  #running = false;

  constructor(schedule: Schedule) {
    this.schedule = schedule;
  }

  /**
   * Adds agents; earlier ones go first where nothing is drawn.
   * @param busy whether one of them is ready, for a block that knows a quicker way than to ask each
   */
  add(agents: readonly Agent[], busy: () => boolean = () => agents.some(({ ready }) => ready)): void {
    this.#groups.push({ agents, busy });
  }

  /** All agents, in the order in which they go where nothing is drawn. */
  get #agents(): Agent[] {
    return this.#groups.flatMap(({ agents }) => agents);
  }

  /** Adds sources of speculative acts. */
  addSpeculator(...speculators: Speculator[]): void {
    this.#speculators.push(...speculators);
  }

  /** Something happened after which hardware may move: an MMIO access, a barrier, a store that became visible. */
  moment(): void {
    if (this.schedule.mode === 'eager') this.drain();
    else if (this.schedule.mode === 'seeded') this.#some(this.schedule.choose('machine', 'acts', 4));
  }

  /** A CPU polls: waiting hardware moves in finite time, so in `seeded` it does something here. */
  poll(): void {
    if (this.schedule.mode === 'eager') this.drain();
    else if (this.schedule.mode === 'seeded') this.#some(1 + this.schedule.choose('machine', 'acts', 4));
  }

  /** Lets every agent go on until nothing is left to do. */
  drain(): void {
    if (this.#running) return;
    const groups = this.#groups;
    this.#running = true;
    try {
      for (let busy = true; busy; ) {
        busy = false;
        for (let i = 0; i < groups.length; i++) {
          const group = groups[i];
          if (group === undefined || !group.busy()) continue;
          busy = true;
          runAll(group.agents);
        }
      }
    } finally {
      this.#running = false;
    }
  }

  /**
   * One act of one agent: the named one, or the first that is ready. False if there was nothing to do.
   * @throws RangeError for a name that no agent has
   */
  step(name?: string): boolean {
    if (this.#running) return false;
    const agents = this.#agents;
    if (name !== undefined && !agents.some((agent) => agent.name === name))
      throw new RangeError(`no agent ${name}; there are ${agents.map((agent) => agent.name).join(', ')}`);
    for (const agent of agents)
      if (agent.ready && (name === undefined || agent.name === name)) {
        this.#act(agent);
        return true;
      }
    return false;
  }

  /** No agent has anything to do. */
  get idle(): boolean {
    return this.#countReady() === 0;
  }

  /** Names of the agents that have something to do. */
  get ready(): string[] {
    return this.#agents.filter((agent) => agent.ready).map((agent) => agent.name);
  }

  #act(agent: Agent): void {
    this.#running = true;
    try {
      agent.act();
    } finally {
      this.#running = false;
    }
  }

  #some(acts: number): void {
    if (this.#running) return;
    this.#running = true;
    try {
      for (let i = 0; i < acts; i++) {
        const ready = this.#countReady();
        const pick = this.schedule.choose('machine', 'who', ready + this.#speculators.length);
        if (pick < ready) this.#readyAt(pick)?.act();
        else this.#speculators[pick - ready]?.speculate(this.schedule);
      }
    } finally {
      this.#running = false;
    }
  }

  #countReady(): number {
    let ready = 0;
    for (let g = 0; g < this.#groups.length; g++) {
      const group = this.#groups[g];
      if (group?.busy() !== true) continue;
      for (let i = 0; i < group.agents.length; i++) if (group.agents[i]?.ready === true) ready++;
    }
    return ready;
  }

  /** The agent that is the nth of those that are ready. */
  #readyAt(n: number): Agent | undefined {
    let left = n;
    for (const { agents, busy } of this.#groups) {
      if (!busy()) continue;
      for (const agent of agents) if (agent.ready && left-- === 0) return agent;
    }
    return undefined;
  }
}

/** Lets agents go on, one after the other, each until it has nothing left to do. */
function runAll(agents: readonly Agent[]): void {
  for (let i = 0; i < agents.length; i++) for (const agent = agents[i]; agent?.ready; ) agent.act();
}
