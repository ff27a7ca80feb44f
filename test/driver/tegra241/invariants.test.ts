import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import * as spec from '../../../spec/tegra241.ts';
import { IommufdError, type Vma } from '../../../src/iommufd/index.ts';
import { GuestCmdqv } from '../../../src/testing/guest-cmdqv.ts';
import { CMDQV, Lab, Vm } from './lab.ts';

const POLICIES = ['at-attach', 'viommu-only', 'at-domain-alloc'] as const;
const NAMES = ['0000:00:01.0', '0000:00:02.0'];

const pick = fc.nat({ max: 7 });
const issue = fc.record({
  kind: fc.constant('issue' as const),
  queue: pick,
  what: fc.constantFrom('asid' as const, 'va' as const, 'atc' as const, 'bad' as const, 'host' as const),
  vsid: fc.integer({ min: 1, max: 4 }),
  hang: fc.boolean(),
});
// Mostly commands; a queue that is off or stopped is started again first.
const op = fc.oneof(
  { weight: 8, arbitrary: issue },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('viommu' as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('vdevice' as const),
      viommu: pick,
      device: fc.nat({ max: 1 }),
      vsid: fc.integer({ min: 1, max: 4 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('queue' as const), viommu: pick, index: fc.nat({ max: 2 }) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('destroy' as const), object: fc.nat({ max: 15 }) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('start' as const, 'stop' as const), queue: pick }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('interrupts' as const, 'reset' as const) }) },
);
type Op = typeof op extends fc.Arbitrary<infer T> ? T : never;

/** What the VMM believes to have, in plain lists. */
class World {
  readonly lab: Lab;
  readonly vm: Vm;
  /** Live vIOMMUs and their VINTFs. */
  readonly viommus: { readonly id: number; readonly v: number; readonly remap: () => Vma; vma: Vma }[] = [];
  readonly vdevices: { readonly id: number; readonly viommu: number; readonly vsid: number; readonly sid: number }[] =
    [];
  readonly queues: { readonly id: number; readonly v: number; readonly index: number; readonly client: GuestCmdqv }[] =
    [];
  readonly #rings: bigint[];
  freed: string[] = [];

  constructor(policy: (typeof POLICIES)[number], seed: number | null) {
    const schedule = seed === null ? {} : { schedule: { mode: 'seeded', seed } as const };
    this.lab = new Lab({ settings: { vmidPolicy: policy }, pollTurns: 400, ...schedule }).boot();
    this.vm = new Vm(this.lab, NAMES);
    this.#rings = Array.from({ length: 8 }, () => this.vm.pages(1));
    this.lab.kernel.onNote(({ what, act, id }) => {
      if (what !== 'vmid' || act !== 'free') return;
      // 12.1: from here on the number may be somebody else's.
      for (const { kind, what: who } of this.lab.machine.smmu('smmu0').vmidHolders(Number(id)))
        if (kind === 'vintf') this.freed.push(`VMID ${id} freed while VINTF ${who} names it`);
    });
  }

  #viommu(n: number): { readonly id: number; readonly v: number } | undefined {
    return this.viommus[n % Math.max(this.viommus.length, 1)];
  }

  #client(n: number): GuestCmdqv | undefined {
    return this.queues[n % Math.max(this.queues.length, 1)]?.client;
  }

  /** Runs one operation; refusals by iommufd are part of life. */
  run(one: Op): void {
    try {
      this.#run(one);
    } catch (error) {
      if (!(error instanceof IommufdError)) throw error;
    }
  }

  #run(one: Op): void {
    switch (one.kind) {
      case 'viommu': {
        const { id, offset } = this.vm.viommu();
        const remap = (): Vma => this.vm.ctx.mmap({ offset, length: 0x10000n });
        const vma = remap();
        this.viommus.push({ id, v: Number(vma.pa - CMDQV - 0x30000n) / 0x20000, remap, vma });
        break;
      }
      case 'vdevice': {
        const to = this.#viommu(one.viommu);
        if (to === undefined) return;
        const id = this.vm.vdevice(to.id, BigInt(one.vsid), one.device);
        this.vdevices.push({ id, viommu: to.id, vsid: one.vsid, sid: [0x8, 0x10][one.device] ?? 0 });
        break;
      }
      case 'queue':
        this.#queue(one);
        break;
      case 'destroy':
        this.#destroy(one.object);
        break;
      case 'start':
        this.#client(one.queue)?.start();
        break;
      case 'stop':
        this.#client(one.queue)?.stop();
        break;
      case 'issue':
        this.#issue(one);
        break;
      case 'interrupts':
        this.lab.kernel.runInterrupts();
        break;
      case 'reset':
        this.lab.driver.reset('smmu0');
    }
  }

  #queue({ viommu, index }: Op & { kind: 'queue' }): void {
    const to = this.#viommu(viommu);
    if (to === undefined) return;
    const ring = this.#rings[2 * to.v + index] ?? 0n;
    const id = this.vm.queue(to.id, index, ring, 256n);
    const page0 = CMDQV + BigInt(spec.vintfPage0(to.v));
    const { bus } = this.lab.machine;
    const client = new GuestCmdqv({
      bus,
      ram: this.vm.ram,
      page0,
      lvcmdq: index,
      ring,
      log2size: 4,
      vmid: 9,
      pollTurns: 300,
    });
    this.queues.push({ id, v: to.v, index, client });
    // 12.4: handed to a new owner clean.
    const vcmdq = this.lab.machine.cmdqv('smmu0').vintfs[to.v]?.slots.get(index);
    expect([vcmdq?.ring.prod, vcmdq?.ring.cons, vcmdq?.errors, vcmdq?.atcTimeout]).toEqual([0, 0, 0, false]);
  }

  #destroy(n: number): void {
    const lists = [this.queues, this.vdevices, this.viommus] as const;
    const all = lists.flatMap((list) => list.map(({ id }) => ({ list, id })));
    const victim = all[n % Math.max(all.length, 1)];
    if (victim === undefined) return;
    const viommu = this.viommus.find(({ id }) => id === victim.id);
    viommu?.vma.close();
    try {
      this.vm.ctx.destroy({ id: victim.id });
    } catch (error) {
      if (viommu !== undefined) viommu.vma = viommu.remap();
      throw error;
    }
    const at = victim.list.findIndex(({ id }) => id === victim.id);
    victim.list.splice(at, 1);
  }

  #issue({ queue, what, vsid, hang }: Op & { readonly kind: 'issue' }): void {
    const client = this.#client(queue);
    if (client === undefined) return;
    if (client.errors !== 0) client.recover();
    if (!client.enabled) client.start();
    const { ats } = this.lab.machine.endpoint(NAMES[0] ?? '');
    if (ats !== null) ats.hang = hang;
    const commands = {
      asid: client.nhAsid(3),
      va: client.nhVa(3, 0x5000n),
      atc: client.atcInvAll(vsid),
      bad: Uint32Array.of(0xff, 0, 0, 0),
      host: Uint32Array.of(0x30, 0, 0, 0),
    };
    const command = commands[what];
    if (hang) client.post(command);
    else client.issue(command);
    if (ats !== null) ats.hang = false;
  }

  check(): void {
    const { lab } = this;
    const cmdqv = lab.machine.cmdqv('smmu0');
    expect([lab.violations, this.freed]).toEqual([[], []]);
    const { vmids } = lab.driver.smmu('smmu0');
    for (const vintf of cmdqv.vintfs) {
      if (vintf.index === 0) continue;
      const owner = this.viommus.find(({ v }) => v === vintf.index);
      // 12.1
      expect([vintf.index, vintf.inUse]).toEqual([vintf.index, owner !== undefined]);
      if (vintf.inUse) expect(vmids.taken).toContain(vintf.VMID);
      expect(vintf.hypOwn).toBe(false);
      // 12.3
      const mapped = [...vintf.slots.keys()].sort();
      expect(mapped).toEqual(mapped.map((_, l) => l));
      expect(mapped).toEqual(
        this.queues
          .filter(({ v }) => v === vintf.index)
          .map(({ index }) => index)
          .sort(),
      );
      // 12.5
      const live = this.vdevices.filter(({ viommu }) => viommu === owner?.id).map(({ vsid, sid }) => [vsid, sid]);
      expect(vintf.pairs().sort()).toEqual(live.sort());
    }
    // 12.2: opcode, VMID and StreamID of what was executed.
    for (const { queue, words } of lab.commands) {
      const v = Number(/^vcmdq(\d+)\./.exec(queue)?.[1] ?? 0);
      if (v === 0) continue;
      const [word0 = 0, word1 = 0] = words;
      const opcode = word0 & 0xff;
      expect([0x11, 0x12, 0x40, 0x46]).toContain(opcode);
      if (opcode === 0x11 || opcode === 0x12) expect(word1 & 0xffff).toBe(cmdqv.vintfs[v]?.VMID);
      if (opcode === 0x40) expect([0x8, 0x10]).toContain(word1);
    }
    lab.commands = [];
  }

  end(): void {
    this.lab.kernel.runInterrupts();
    for (const { vma } of this.viommus) vma.close();
    for (const { vfio } of this.vm.devices) vfio.close();
    this.vm.ctx.close();
    const { vmids } = this.lab.driver.smmu('smmu0');
    expect([vmids.taken, this.lab.driver.quarantined(), this.lab.violations, this.freed]).toEqual([[], [], [], []]);
  }
}

describe('invariants of the whole [tegra241-cmdqv 12]', () => {
  test('1 to 5 hold after every step, whatever VMM and VMs do, under any schedule', () => {
    let executed = 0;
    fc.assert(
      fc.property(
        fc.array(op, { minLength: 4, maxLength: 30 }),
        fc.constantFrom(...POLICIES),
        fc.option(fc.integer({ min: 0, max: 999 })),
        (ops, policy, seed) => {
          const world = new World(policy, seed);
          // Two vIOMMUs, one with device and started queue, so that most runs have commands.
          const start: Op[] = [
            { kind: 'viommu' },
            { kind: 'viommu' },
            { kind: 'vdevice', viommu: 0, device: 0, vsid: 2 },
            { kind: 'queue', viommu: 0, index: 0 },
            { kind: 'start', queue: 0 },
          ];
          for (const [n, one] of [...start, ...ops].entries()) {
            world.lab.machine.conductor.schedule.operation(`${n}`);
            world.run(one);
            executed += world.lab.commands.filter(({ queue }) => queue.startsWith('vcmdq1')).length;
            world.check();
          }
          world.end();
        },
      ),
      { numRuns: 20 },
    );
    expect(executed).toBeGreaterThan(50);
  });
});
