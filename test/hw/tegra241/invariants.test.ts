import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import * as spec from '../../../spec/tegra241.ts';
import { grace } from '../../../src/hw/index.ts';
import { atcInv, CMDQV, CmdqvRegs, LOG2, nhAsid, nhVa, SYNC } from './cmdqv-regs.ts';

// Some of the 8 VCMDQs and 4 VINTFs of SMALL_PARAM, both pairs.
const q = fc.nat({ max: 3 });
const v = fc.nat({ max: 2 });
const command = fc.oneof(
  fc.constant(SYNC),
  fc.tuple(fc.bigInt(0n, 15n), fc.bigInt(0n, 7n)).map(([vmid, asid]) => nhAsid(vmid, asid)),
  fc.tuple(fc.bigInt(0n, 15n), fc.bigInt(0n, 7n)).map(([vmid, asid]) => nhVa(vmid, asid, 0x1000n)),
  fc.bigInt(0n, 7n).map(atcInv),
  fc.constantFrom<readonly [bigint, bigint]>([0x30n, 0n], [0xffn, 0n], [(5n << 32n) | 0x28n, 0n]),
);
const op = fc.oneof(
  fc.record({ kind: fc.constant('map' as const), q, v, l: fc.nat({ max: 2 }) }),
  fc.record({ kind: fc.constant('unmap' as const), q }),
  fc.record({ kind: fc.constant('open' as const), v, vmid: fc.integer({ min: 1, max: 15 }) }),
  fc.record({ kind: fc.constant('close' as const), v }),
  fc.record({ kind: fc.constant('start' as const), q }),
  fc.record({ kind: fc.constant('stop' as const), q }),
  fc.record({
    kind: fc.constant('pair' as const),
    v,
    s: fc.nat({ max: 1 }),
    virt: fc.nat({ max: 7 }),
    on: fc.boolean(),
  }),
  fc.record({ kind: fc.constant('issue' as const), q, commands: fc.array(command, { minLength: 1, maxLength: 4 }) }),
  fc.record({ kind: fc.constant('ack' as const), q }),
  fc.record({ kind: fc.constant('block' as const), on: fc.boolean() }),
);
type Op = typeof op extends fc.Arbitrary<infer T> ? T : never;

function run(r: CmdqvRegs, one: Op): void {
  const { bus } = r;
  switch (one.kind) {
    case 'map':
      r.map(one.q, one.v, one.l);
      break;
    case 'unmap':
      bus.writel(r.global(spec.CMDQV_CMDQ_ALLOC, one.q), 0);
      break;
    case 'open':
      r.openVintf(one.v, one.vmid);
      break;
    case 'close':
      r.closeVintf(one.v);
      break;
    case 'start':
      r.startQueue(one.q, LOG2);
      break;
    case 'stop':
      bus.writel(r.vcmdq(one.q, spec.VCMDQ_CONFIG), 0);
      break;
    case 'pair':
      bus.writel(r.vintf(one.v, spec.VINTF_SID_MATCH, one.s), 0);
      // Physical StreamIDs tell their VINTF: 0x100 * (v + 1) + vSID.
      if (one.on) r.pair(one.v, one.s, one.virt, 0x100 * (one.v + 1) + one.virt);
      break;
    case 'issue':
      r.issue(one.q, ...one.commands);
      break;
    case 'ack':
      r.ack(one.q);
      break;
    case 'block':
      bus.writel(r.global(spec.CMDQV_CONFIG), one.on ? 1 : 0);
  }
}

/** What must hold of the announcements, followed from the first one with plain state. */
function checkActs(r: CmdqvRegs): void {
  const vmidOf = new Map<number, number>();
  const running = new Map<string, boolean>();
  for (const act of r.acts) {
    if (act.kind === 'vintf') {
      if (act.enabled) vmidOf.set(act.vintf, act.VMID);
      else vmidOf.delete(act.vintf);
    }
    if (act.kind === 'vcmdq') running.set(`vcmdq${act.vintf}.${act.lvcmdq}`, act.act === 'enabled');
    if (act.kind === 'tlb-invalidated') expect([...vmidOf.values()]).toContain(act.invalidation.VMID);
    if (act.kind !== 'command') continue;
    const vintf = Number(act.queue.slice('vcmdq'.length).split('.')[0]);
    expect(running.get(act.queue)).toBe(true);
    expect(vmidOf.has(vintf)).toBe(true);
    const [word0 = 0, word1 = 0] = act.words;
    const opcode = word0 & 0xff;
    expect([0x11, 0x12, 0x40, 0x46]).toContain(opcode);
    if (opcode === 0x11 || opcode === 0x12) expect(word1 & 0xffff).toBe(vmidOf.get(vintf));
    if (opcode === 0x40) expect(word1 >>> 8).toBe(vintf + 1);
  }
}

/** Past the bus, so that hardware does not move between two reads. */
function checkRegisters(r: CmdqvRegs): void {
  const cmdqv = r.machine.cmdqv('smmu0');
  const read = (at: bigint): number => cmdqv.mmioRead32(Number(at - CMDQV));
  const errors = cmdqv.vcmdqs.map((_, n) =>
    read(r.vcmdq(n, spec.VCMDQ_GERROR)) === read(r.vcmdq(n, spec.VCMDQ_GERRORN)) ? 0 : 1,
  );
  const bits = (flags: readonly number[]): number => flags.reduce((map, flag, bit) => map | (flag << bit), 0);
  expect(read(r.global(spec.CMDQV_CMDQ_ERR_MAP))).toBe(bits(errors));
  for (const [n, { slots }] of cmdqv.vintfs.entries()) {
    for (const [l, queue] of slots)
      for (const register of [spec.VCMDQ_CONS, spec.VCMDQ_PROD, spec.VCMDQ_STATUS, spec.VCMDQ_GERROR, spec.VCMDQ_BASE])
        expect(read(r.lvcmdq(n, l, register))).toBe(read(r.vcmdq(queue.q, register)));
    const inError = [...slots].filter(([, queue]) => errors[queue.q] === 1).map(([l]) => l);
    const map = bits([0, 1, 2].map((l) => (inError.includes(l) ? 1 : 0)));
    expect(read(r.vintf(n, spec.VINTF_LVCMDQ_ERR_MAP))).toBe(map);
    // 12.3, as long as software kept the order of unmapping.
    if (!r.violations.includes('CMDQV-9')) expect([...slots.keys()].sort()).toEqual([...slots.keys()].map((_, i) => i));
  }
}

describe('invariants [tegra241-cmdqv 12]', () => {
  test('12.2 whatever software does, a VM reaches only its own VMID and devices, from enabled queues only', () => {
    fc.assert(
      fc.property(
        fc.array(op, { maxLength: 40 }),
        fc.integer({ min: 0, max: 1000 }),
        fc.boolean(),
        (ops, seed, eager) => {
          const r = new CmdqvRegs({ schedule: eager ? { mode: 'eager' } : { mode: 'seeded', seed } });
          r.smmuOn();
          // Two VMs to begin with, so that most runs have commands executed.
          for (const vm of [1, 2]) r.guest(vm, vm, vm + 8);
          for (const [n, one] of ops.entries()) {
            r.machine.conductor.schedule.operation(`${n}`);
            run(r, one);
            checkRegisters(r);
          }
          r.machine.drain();
          checkActs(r);
          checkRegisters(r);
        },
      ),
      { numRuns: 60 },
    );
  });

  test('the property can fail: commands do get through in such runs', () => {
    const r = new CmdqvRegs();
    r.smmuOn();
    const steps: Op[] = [
      { kind: 'open', v: 1, vmid: 9 },
      { kind: 'map', q: 0, v: 1, l: 0 },
      { kind: 'pair', v: 1, s: 0, virt: 3, on: true },
      { kind: 'start', q: 0 },
      { kind: 'issue', q: 0, commands: [nhAsid(2n, 1n), atcInv(3n), SYNC] },
    ];
    for (const one of steps) run(r, one);
    checkActs(r);
    expect(r.executed.map(([, low]) => low)).toEqual([0x1_0009_0000_0011n, 0x203_0000_0040n, 0x46n]);
  });
});

describe('grace()', () => {
  test('several SMMUs, each with a CMDQV of the host size and its own interrupt; firmware tells of them', () => {
    const machine = grace({ smmus: 3 });
    expect(machine.firmware.smmus.map(({ name, base, cmdqv }) => [name, base, cmdqv?.base, cmdqv?.irq])).toEqual([
      ['smmu0', 0x1100_0000n, 0x1103_0000n, 78],
      ['smmu1', 0x1200_0000n, 0x1203_0000n, 86],
      ['smmu2', 0x1300_0000n, 0x1303_0000n, 94],
    ]);
    for (const { cmdqv } of machine.firmware.smmus) expect(machine.bus.readl((cmdqv?.base ?? 0n) + 4n)).toBe(0x4671);
    expect(machine.firmware.devices.map(({ smmu }) => smmu)).toEqual([
      'smmu0',
      'smmu0',
      'smmu1',
      'smmu1',
      'smmu2',
      'smmu2',
    ]);
    expect(() => machine.cmdqv('smmu9')).toThrow(RangeError);
  });
});
