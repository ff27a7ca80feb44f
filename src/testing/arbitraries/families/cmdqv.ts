/** Arbitraries of a Tegra241 CMDQV in use: by VMMs, and by guests that keep to its rules or do not. */
import fc from 'fast-check';
import { FIRST_DATA_PAGE, GUEST_PAGES, GUEST_SPACES } from '../../guest.ts';
import { type CmdqvOperation, PAGE0_REGISTERS, type VcmdqCommand } from '../../operations/cmdqv.ts';
import { LVCMDQS, type Makers, oneOf, op, type Pools } from '../pools.ts';
import { page, vsid } from '../values.ts';
import { guestCommand } from './guests.ts';

/** A page of a guest that holds neither tables nor data. */
export const RING_PAGE = FIRST_DATA_PAGE - 1;
/** Bytes of a queue that leaves the first bytes of its page, which say whose the page is, alone. */
const HALF_PAGE = 2048;

/** Where a queue may lie: half a page; its size. */
export const goodRing: fc.Arbitrary<{ readonly page: number; readonly offset: number; readonly bytes: number }> =
  fc.oneof(
    fc.record({
      page: fc.constant(RING_PAGE),
      offset: fc.constantFrom(0, HALF_PAGE),
      bytes: fc.constantFrom(HALF_PAGE, HALF_PAGE, 256, 32),
    }),
    fc.record({ page, offset: fc.constant(HALF_PAGE), bytes: fc.constantFrom(HALF_PAGE, 64) }),
  );

/** Where one must not lie: no power of two, too small, too large, not aligned to its size, outside the guest. */
export const badRing = fc.constantFrom(
  { page: RING_PAGE, offset: 0, bytes: 0 },
  { page: RING_PAGE, offset: 0, bytes: 16 },
  { page: RING_PAGE, offset: 0, bytes: 1000 },
  { page: RING_PAGE, offset: 1024, bytes: HALF_PAGE },
  { page: RING_PAGE, offset: 32, bytes: 64 },
  { page: FIRST_DATA_PAGE + 1, offset: 1024, bytes: HALF_PAGE },
  { page: FIRST_DATA_PAGE, offset: 0, bytes: 8192 },
  { page: GUEST_PAGES, offset: 0, bytes: HALF_PAGE },
);

/** What a VM's queue executes. */
export const goodCommand: fc.Arbitrary<VcmdqCommand> = fc.oneof(
  fc.record({
    command: fc.constant('NH_ASID' as const),
    asid: fc.integer({ min: 1, max: GUEST_SPACES }),
    vmid: fc.nat({ max: 4 }),
  }),
  fc.record({
    command: fc.constant('NH_VA' as const),
    asid: fc.integer({ min: 1, max: GUEST_SPACES }),
    vmid: fc.nat({ max: 4 }),
    page,
  }),
  fc.record({ command: fc.constant('ATC_INV' as const), vsid }),
);

/** Anything: what the guest's own Command queue takes, and what no queue takes. */
export const anyCommand: fc.Arbitrary<VcmdqCommand> = fc.oneof(
  { weight: 4, arbitrary: goodCommand },
  { weight: 3, arbitrary: guestCommand },
  {
    weight: 3,
    arbitrary: fc.constantFrom<VcmdqCommand>(
      { command: 'GARBAGE' },
      { command: 'SYNC_IRQ' },
      { command: 'CFGI_STE', vsid: 1 },
      { command: 'S12_VMALL', vmid: 1 },
      { command: 'NH_ALL', vmid: 1 },
      { command: 'NSNH_ALL' },
    ),
  },
);

const commands = (of: fc.Arbitrary<VcmdqCommand>): fc.Arbitrary<VcmdqCommand[]> =>
  fc.array(of, { minLength: 1, maxLength: 3 });

/** A value for a register: 0, 1, an index, anything. */
const value = fc.oneof(fc.constantFrom(0, 1, 2, 7), fc.nat({ max: 0x1ff }), fc.nat({ max: 0xffff_ffff }));
const register = fc.constantFrom(...(Object.keys(PAGE0_REGISTERS) as (keyof typeof PAGE0_REGISTERS)[]));

/** The vIOMMU, the window and the queues of a number belong together. */
const related = (p: Pools): fc.Arbitrary<number> => fc.nat({ max: p.windows.length - 1 });

/** See the module comment. */
export function cmdqvMakers(p: Pools): Makers<CmdqvOperation> {
  const index = fc.nat({ max: LVCMDQS - 1 });
  const window = oneOf(p.windows);
  const queue = <N extends string>(name: N) => fc.record({ op: op(name), window, index });
  return {
    hwQueueAlloc: fc
      .record({
        i: related(p),
        index: fc.constantFrom(0, 0, 1, 1, LVCMDQS),
        ring: fc.oneof({ weight: 3, arbitrary: goodRing }, { weight: 1, arbitrary: badRing }),
      })
      .map(({ i, index: l, ring }) => ({
        op: 'hwQueueAlloc' as const,
        as: queueName(p, i, l),
        viommu: p.viommus[i] ?? '',
        index: l,
        ...ring,
      })),
    mmap: fc
      .record({ i: related(p), vm: oneOf(p.vms) })
      .map(({ i, vm }) => ({ op: 'mmap' as const, as: p.windows[i] ?? '', viommu: p.viommus[i] ?? '', vm })),
    munmap: fc.record({ op: op('munmap'), name: window }),
    vcmdqStart: queue('vcmdqStart'),
    vcmdqStop: queue('vcmdqStop'),
    vcmdqRecover: queue('vcmdqRecover'),
    vcmdqIssue: fc
      .record({ window, index, list: commands(anyCommand), post: fc.constantFrom(false, false, true) })
      .map(({ list, post, ...at }) => ({
        op: 'vcmdqIssue' as const,
        ...at,
        commands: list,
        ...(post ? { post } : {}),
      })),
    vcmdqWrite: fc.record({ op: op('vcmdqWrite'), window, index, register, value }),
    vcmdqRead: fc.record({ op: op('vcmdqRead'), window, index, register }),
  };
}

/** Name of LVCMDQ `l` of vIOMMU number `i`; one too many shares a name. */
export const queueName = (p: Pools, i: number, l: number): string =>
  p.queues[(l % LVCMDQS) * p.windows.length + i] ?? '';
