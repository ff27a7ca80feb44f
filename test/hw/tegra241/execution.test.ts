import { describe, expect, test } from 'vitest';
import { CMDQ_BASE, CMDQ_PROD, CR0, GERROR } from '../../../spec/registers.ts';
import * as spec from '../../../spec/tegra241.ts';
import { type CmdqvOptions, linuxNesting, SMALL_PARAM } from '../../../src/hw/index.ts';
import { atcInv, CMDQV, CmdqvRegs, nhAsid, nhVa, RAM, ringOf, SMMU, SYNC } from './cmdqv-regs.ts';

const withOptions = (options: Partial<CmdqvOptions>): CmdqvRegs =>
  new CmdqvRegs({ cmdqv: { param: SMALL_PARAM, options } });

/** A guest of VINTF 1 with VMID 3 on VCMDQ 0. */
function guest(options: Partial<CmdqvOptions> = {}): CmdqvRegs {
  const r = withOptions(options);
  r.smmuOn();
  r.guest(1, 0, 3);
  return r;
}

const ILL = 1;
const ABT = 2;
const ATC_INV_SYNC = 3;
const ILL_ACCESS = 4;

describe('commands of a VM [tegra241-cmdqv 9]', () => {
  test('9.2 TLBI_NH_ASID, TLBI_NH_VA, ATC_INV and CMD_SYNC are executed', () => {
    const r = guest();
    r.pair(1, 0, 0x20, 0x8);
    r.issue(0, nhAsid(0n, 1n), nhVa(0n, 1n, 0x1000n), atcInv(0x20n), SYNC);
    expect([r.rd(0), r.errors(0)]).toEqual([4, 0]);
    expect(r.executed.map(([, low]) => low & 0xffn)).toEqual([0x11n, 0x12n, 0x40n, 0x46n]);
  });

  test.each([0n, 3n, 9n, 0xffffn])("9.3 the VMID operand %s is replaced by the VINTF's", (operand) => {
    const r = guest();
    r.issue(0, nhAsid(operand, 0x1234n), nhVa(operand, 0x1234n, 0x7_0000_1001n));
    expect(r.executed).toEqual([
      ['vcmdq1.0', 0x1234_0003_0000_0011n, 0n],
      ['vcmdq1.0', 0x1234_0003_0000_0012n, 0x7_0000_1001n],
    ]);
    const hits = r.acts.flatMap((act) => (act.kind === 'tlb-invalidated' ? [act.invalidation.VMID] : []));
    expect(hits.every((vmid) => vmid === 3)).toBe(true);
  });

  test('9.3 ASID, VA, Leaf, TTL, TG, NUM and SCALE are taken as given', () => {
    const r = guest();
    // NH_VA: NUM 16:12 = 31, SCALE 25:20 = 2, Leaf 64, TTL 73:72 = 3, TG 75:74 = 1.
    const low = (0xabcdn << 48n) | (2n << 20n) | (31n << 12n) | 0x12n;
    const high = 0x1234_5000n | (1n << 10n) | (3n << 8n) | 1n;
    r.issue(0, [low, high]);
    expect(r.executed).toEqual([['vcmdq1.0', low | (3n << 32n), high]]);
  });

  test('the words as the guest wrote them are announced beside those executed', () => {
    const r = guest();
    r.issue(0, nhAsid(9n, 1n));
    const act = r.acts.find((one) => one.kind === 'command');
    expect(act?.kind === 'command' ? act.fetched?.[1] : undefined).toBe(0x0001_0009);
  });

  test('9.4 ATC_INV goes to the physical StreamID of the matching pair, other operands kept', () => {
    const r = guest();
    r.pair(1, 0, 0x20, 0x8);
    r.pair(1, 1, 0x21, 0x10);
    r.issue(0, [(0x21n << 32n) | 0x40n, 0x5000_0003n]);
    expect(r.executed).toEqual([['vcmdq1.0', 0x10_0000_0040n, 0x5000_0003n]]);
    expect(r.acts.flatMap((act) => (act.kind === 'ats' ? [[act.endpoint, act.StreamID]] : []))).toEqual([['b', 0x10]]);
  });

  test.each([
    ['no pair at all', (_: CmdqvRegs) => {}],
    ['a disabled pair', (r: CmdqvRegs) => r.bus.writel(r.vintf(1, spec.VINTF_SID_MATCH), 0x8 << 1)],
    ["another VINTF's pair", (r: CmdqvRegs) => r.pair(2, 0, 0x8, 0x8)],
  ])('9 no enabled match, %s: CERROR 4, never the raw SID [IMPDEF, CMDQV-7]', (_, prepare) => {
    const r = guest();
    prepare(r);
    r.issue(0, atcInv(0x8n), SYNC);
    expect([r.rd(0), r.err(0), r.errors(0)]).toEqual([0, ILL_ACCESS, 1]);
    expect(r.acts.filter((act) => act.kind === 'ats')).toEqual([]);
  });

  test('a StreamID of more than 20 bits matches no pair, though its low bits do', () => {
    const r = guest();
    r.pair(1, 0, 0x8, 0x8);
    r.issue(0, atcInv(0x10_0008n));
    expect(r.err(0)).toBe(ILL_ACCESS);
  });

  test("noSidMatch 'ill' and 'skip'", () => {
    const ill = guest({ noSidMatch: 'ill' });
    ill.issue(0, atcInv(0x8n));
    expect(ill.err(0)).toBe(ILL);
    const skip = guest({ noSidMatch: 'skip' });
    skip.issue(0, atcInv(0x8n), SYNC);
    expect([skip.rd(0), skip.errors(0), skip.acts.filter((act) => act.kind === 'ats')]).toEqual([2, 0, []]);
  });

  test('two enabled pairs with one vSID: the lowest index, CMDQV-6 [IMPDEF]', () => {
    const r = guest();
    r.pair(1, 1, 0x20, 0x10);
    r.pair(1, 0, 0x20, 0x8);
    expect(r.violations).toEqual(['CMDQV-6']);
    r.issue(0, atcInv(0x20n));
    expect(r.executed).toEqual([['vcmdq1.0', 0x8_0000_0040n, 52n]]);
  });

  test('CMDQV-6 one physical StreamID in pairs of two VINTFs', () => {
    const r = new CmdqvRegs();
    r.pair(1, 0, 0x20, 0x8);
    r.pair(2, 0, 0x30, 0x8);
    expect(r.violations).toEqual(['CMDQV-6']);
  });

  test('CMDQV-5 SID_REPLACE changed while SID_MATCH is enabled', () => {
    const r = new CmdqvRegs();
    r.pair(1, 0, 0x20, 0x8);
    r.bus.writel(r.vintf(1, spec.VINTF_SID_REPLACE), 0x10);
    expect(r.violations).toEqual(['CMDQV-5']);
  });

  // Opcodes of IHI 0070 table 4.1.1 that the Non-secure queue knows, without the four permitted ones; then Secure ones.
  const refused = [
    0x01n,
    0x02n,
    0x03n,
    0x04n,
    0x05n,
    0x06n,
    0x07n,
    0x10n,
    0x13n,
    0x20n,
    0x21n,
    0x22n,
    0x23n,
    0x28n,
    0x2an,
    0x30n,
    0x41n,
    0x44n,
    0x45n,
    0x18n,
    0x50n,
    0x60n,
  ];
  test.each(refused.map((opcode) => [opcode.toString(16), opcode] as const))(
    '9.2 opcode 0x%s is not permitted: CERROR 4 [IMPDEF]',
    (_, opcode) => {
      const r = guest();
      r.issue(0, [opcode, 0n], SYNC);
      expect([r.rd(0), r.err(0), r.errors(0), r.executed]).toEqual([0, ILL_ACCESS, 1, []]);
    },
  );

  test("notPermitted 'ill' and 'skip'", () => {
    const ill = guest({ notPermitted: 'ill' });
    ill.issue(0, [0x30n, 0n]);
    expect(ill.err(0)).toBe(ILL);
    const skip = guest({ notPermitted: 'skip' });
    skip.issue(0, [0x30n, 0n], SYNC);
    expect([skip.rd(0), skip.errors(0)]).toEqual([2, 0]);
    expect(skip.acts.filter((act) => act.kind === 'tlb-invalidated')).toEqual([]);
  });

  test.each([
    ['an opcode that nothing defines', [0xffn, 0n]],
    ['NH_VA with TG and NUM = SCALE = TTL = 0', [0x12n, 1n << 10n]],
    ['CMD_SYNC with CS = 3', [0x3046n, 0n]],
    ['ATC_INV of Size 53, its SID not matched', [0x40n, 53n]],
  ] as const)('unknown or malformed: %s is CERROR 1', (_, command) => {
    const r = guest();
    r.issue(0, command);
    expect([r.rd(0), r.err(0), r.errors(0)]).toEqual([0, ILL, 1]);
  });

  test('an SMMU without ATS: CMD_ATC_INV is CERROR 1', () => {
    const r = new CmdqvRegs({
      config: {
        ...linuxNesting,
        IDR0: { ...linuxNesting.IDR0, ATS: 0, PRI: 0, ATSRECERR: 0 },
        IDR1: { ...linuxNesting.IDR1, PRIQS: 0 },
      },
    });
    r.guest(1, 0, 3);
    r.pair(1, 0, 1, 8);
    r.issue(0, atcInv(1n));
    expect(r.err(0)).toBe(ILL);
  });
});

describe("the hypervisor's own queues [tegra241-cmdqv 9.1]", () => {
  function own(options: Partial<CmdqvOptions> = {}): CmdqvRegs {
    const r = withOptions(options);
    r.smmuOn();
    r.guest(0, 0, 0, true);
    return r;
  }

  test('HYP_OWN executes every command unmodified', () => {
    const r = own();
    const commands = [
      [0x03n | (8n << 32n), 1n],
      [0x28n | (7n << 32n), 0n],
      [0x2an | (7n << 32n), 0x1000n],
      [0x30n, 0n],
      [0x11n | (0n << 32n) | (9n << 48n), 0n],
      [0x40n | (8n << 32n), 52n],
      [0x46n, 0n],
    ] as const;
    r.issue(0, ...commands);
    expect([r.rd(0), r.errors(0)]).toEqual([7, 0]);
    expect(r.executed.map(([, ...words]) => words)).toEqual(commands.map((pair) => [...pair]));
  });

  test.each([
    ['IRQ', 0x1046n],
    ['SEV', 0x2046n],
  ])("CMD_SYNC with CS = %s is CERROR 1, with 'as-none' a CMD_SYNC [IMPDEF]", (_, low) => {
    const r = own();
    r.issue(0, [low, 0n]);
    expect([r.rd(0), r.err(0)]).toEqual([0, ILL]);
    const none = own({ syncSignal: 'as-none' });
    const wakeUps = none.machine.wakeUps;
    none.issue(0, [low, 0n]);
    expect([none.rd(0), none.errors(0), none.machine.wakeUps]).toEqual([1, 0, wakeUps]);
  });
});

describe('errors and restart [tegra241-cmdqv 6, 9]', () => {
  test('after GERRORN = GERROR execution goes on at CONS, ERR is 0 again', () => {
    const r = guest();
    r.issue(0, [0x30n, 0n], SYNC, SYNC);
    r.issue(0, SYNC);
    expect([r.rd(0), r.err(0)]).toEqual([0, ILL_ACCESS]);
    // The resume protocol: the entry at CONS becomes a CMD_SYNC, then the acknowledge.
    r.machine.memory.write64(ringOf(0), 0x46n);
    r.ack(0);
    expect([r.rd(0), r.err(0), r.errors(0), r.read(0, spec.VCMDQ_GERROR)]).toEqual([4, 0, 0, 1]);
  });

  test('without a repair it fails again: GERROR toggles back', () => {
    const r = guest();
    r.issue(0, [0x30n, 0n]);
    r.ack(0);
    expect([r.read(0, spec.VCMDQ_GERROR), r.read(0, spec.VCMDQ_GERRORN), r.err(0)]).toEqual([0, 1, ILL_ACCESS]);
  });

  test('fetch abort: CERROR 2 at the index, CONS kept, fetched again after the acknowledge', () => {
    const r = guest();
    r.bus.writel(r.vcmdq(0, spec.VCMDQ_CONFIG), 0);
    r.bus.writeq(r.vcmdq(0, spec.VCMDQ_BASE), 0x9_0000_0004n);
    r.bus.writel(r.vcmdq(0, spec.VCMDQ_CONFIG), 1);
    r.bus.writel(r.vcmdq(0, spec.VCMDQ_PROD), 1);
    expect([r.rd(0), r.err(0), r.errors(0)]).toEqual([0, ABT, 1]);
    r.ack(0);
    expect([r.rd(0), r.err(0), r.errors(0)]).toEqual([0, ABT, 1]);
  });

  test('indices wrap as those of the SMMU queue: empty, full, inconsistent', () => {
    const r = guest();
    for (let i = 0; i < 5; i++) r.issue(0, ...Array.from({ length: 16 }, () => SYNC));
    expect(r.rd(0)).toBe(16);
    // 17 ahead in a ring of 16: inconsistent, nothing is consumed until they fit again.
    r.bus.writel(r.vcmdq(0, spec.VCMDQ_PROD), (16 + 17) % 32);
    expect(r.rd(0)).toBe(16);
    r.bus.writel(r.vcmdq(0, spec.VCMDQ_PROD), 17);
    expect([r.rd(0), r.errors(0)]).toEqual([17, 0]);
  });

  test('an error of one queue leaves the others going', () => {
    const r = guest();
    r.guest(2, 1, 4);
    r.issue(0, [0x30n, 0n]);
    r.issue(1, SYNC);
    expect([r.errors(0), r.rd(1), r.errors(1)]).toEqual([1, 1, 0]);
  });

  test('ATC time-out: CERROR 3 at the CMD_SYNC, which repeats after the acknowledge [9.6]', () => {
    const r = guest();
    r.pair(1, 0, 0x20, 0x8);
    const { ats } = r.machine.endpoint('a');
    if (ats === null) throw new Error('endpoint a has ATS');
    ats.hang = true;
    r.issue(0, atcInv(0x20n), nhAsid(0n, 1n), SYNC);
    expect([r.rd(0), r.err(0), r.errors(0)]).toEqual([2, ATC_INV_SYNC, 1]);
    r.ack(0);
    expect([r.rd(0), r.errors(0)]).toEqual([3, 0]);
  });

  /** Disabled between the ATC_INV that timed out and its CMD_SYNC, and given to VINTF 2. */
  function handedOver(flush: (r: CmdqvRegs) => void): CmdqvRegs {
    const r = guest();
    r.pair(1, 0, 0x20, 0x8);
    const { ats } = r.machine.endpoint('a');
    if (ats !== null) ats.hang = true;
    r.issue(0, atcInv(0x20n));
    r.bus.writel(r.vcmdq(0, spec.VCMDQ_CONFIG), 0);
    flush(r);
    r.unmap(0, 1, 0);
    for (const index of [spec.VCMDQ_PROD, spec.VCMDQ_CONS]) r.bus.writel(r.vcmdq(0, index), 0);
    r.guest(2, 0, 4);
    r.issue(0, SYNC);
    return r;
  }

  test('9.6 a time-out that no CMD_SYNC collected surfaces in the next owner, CMDQV-10', () => {
    const r = handedOver(() => {});
    expect([r.rd(0), r.err(0), r.violations]).toEqual([0, ATC_INV_SYNC, ['CMDQV-10']]);
  });

  /** CMD_SYNC on the SMMU's own queue; no error comes of it. */
  function syncOnSmmu({ bus, machine }: CmdqvRegs): void {
    const cmdq = RAM + 0x80_0000n;
    bus.writeq(SMMU + BigInt(CMDQ_BASE.offset), cmdq | 4n);
    bus.writel(SMMU + BigInt(CR0.offset), CR0.bit('SMMUEN', 'CMDQEN'));
    machine.memory.write64(cmdq, 0x46n);
    bus.writel(SMMU + BigInt(CMDQ_PROD.offset), 1);
    expect(bus.readl(SMMU + BigInt(GERROR.offset))).toBe(0);
  }

  test("9.6 a CMD_SYNC on the SMMU's own queue clears it, silently", () => {
    const r = handedOver(syncOnSmmu);
    expect([r.rd(0), r.errors(0), r.violations]).toEqual([1, 0, []]);
  });

  test('9.6 a CMD_SYNC on another VCMDQ does not', () => {
    const r = handedOver((all) => {
      all.guest(3, 1, 5);
      all.issue(1, SYNC);
    });
    expect(r.err(0)).toBe(ATC_INV_SYNC);
  });

  test("9.6 nor does one on the SMMU's while the queue is enabled: the VM has its error", () => {
    const r = guest();
    r.pair(1, 0, 0x20, 0x8);
    const { ats } = r.machine.endpoint('a');
    if (ats !== null) ats.hang = true;
    r.issue(0, atcInv(0x20n));
    syncOnSmmu(r);
    r.issue(0, SYNC);
    expect(r.err(0)).toBe(ATC_INV_SYNC);
  });
});

describe('CONS write-back [tegra241-cmdqv 6]', () => {
  const AT = RAM + 0x70_0000n;

  function writingBack(at: bigint): CmdqvRegs {
    const r = new CmdqvRegs();
    r.bus.writel(CMDQV, r.bus.readl(CMDQV) | (1 << 20));
    r.bus.writeq(r.vcmdq(0, spec.VCMDQ_CONS_INDX_BASE), at);
    r.guest(1, 0, 3);
    return r;
  }

  test('CONS goes to memory with CONS_DRAM_EN and an address; errors too', () => {
    const r = writingBack(AT);
    r.issue(0, SYNC, SYNC, [0x30n, 0n]);
    expect(r.machine.memory.read32(AT)).toBe(0x0400_0002);
  });

  test('nothing is written with CONS_DRAM_EN = 0, or with address 0', () => {
    const r = new CmdqvRegs();
    r.bus.writeq(r.vcmdq(0, spec.VCMDQ_CONS_INDX_BASE), AT);
    r.guest(1, 0, 3);
    r.issue(0, SYNC);
    expect(r.machine.memory.read32(AT)).toBe(0);
    const none = writingBack(0n);
    none.issue(0, SYNC);
    expect([none.rd(0), none.errors(0)]).toEqual([1, 0]);
  });

  test('an abort of it toggles GERROR bit 1; commands go on', () => {
    const r = writingBack(0x9_0000_0000n);
    r.issue(0, SYNC, SYNC);
    expect([r.rd(0), r.errors(0), r.interrupts]).toEqual([2, 2, 1]);
  });
});
