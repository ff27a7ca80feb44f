import { describe, expect, test } from 'vitest';
import { type Capability, IommufdContext, type LockedPages } from '../../src/iommufd/index.ts';
import { errno, Lab, RW } from './lab.ts';

/** Two processes of one user who may lock 6 pages; each maps 4 with a domain. */
function two(mode: bigint, capable: (what: Capability) => boolean = (what) => what !== 'ipc-lock'): string[] {
  const lab = new Lab();
  const userLocked: LockedPages = { count: 0 };
  return [lab.a, lab.b].map((dev) => {
    const process = { memory: lab.space, capable, memlockPages: 6, userLocked };
    const ctx = new IommufdContext({ kernel: lab.kernel, process });
    ctx.option({ option_id: 0, op: 0, val64: mode });
    const devid = ctx.bind(dev).id;
    const ioas = ctx.ioasAlloc().out_ioas_id;
    ctx.hwptAlloc({ dev_id: devid, pt_id: ioas });
    const result = errno(() => ctx.ioasMap({ ioas_id: ioas, flags: 7, user_va: RW, length: 0x4000n, iova: 0n }));
    expect(ctx.pins.pinned).toBe(result === 'ok' ? 4 : 0);
    return result;
  });
}

describe('whom RLIMIT_MEMLOCK is counted against (IOMMU_OPTION_RLIMIT_MODE)', () => {
  test('0: the user, over all processes', () => expect(two(0n)).toEqual(['ok', 'ENOMEM']));
  test('1: each process for itself', () => expect(two(1n)).toEqual(['ok', 'ok']));
  test('nobody, with CAP_IPC_LOCK', () => expect(two(0n, () => true)).toEqual(['ok', 'ok']));
});
