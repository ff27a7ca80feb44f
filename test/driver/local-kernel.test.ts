import { describe, expect, test } from 'vitest';
import { LocalKernel } from '../../src/driver/local-kernel.ts';
import { PageAllocator } from '../../src/driver/page-allocator.ts';
import { createMachine, minimal } from '../../src/hw/index.ts';

const machine = (ram = [{ base: 0x4000_0000n, size: 0x10_0000n }]) =>
  createMachine({ smmus: [{ config: minimal, base: 0x0905_0000n }], ram });

const kernelOn = (pollTurns = 10): LocalKernel => new LocalKernel(machine().bus, { pollTurns });

describe('pages', () => {
  test('the lowest place that fits, aligned to the size; freed memory is handed out again, zeroed', () => {
    const kernel = kernelOn();
    const one = kernel.allocPages('a', 100);
    const four = kernel.allocPages('b', 0x3001);
    const two = kernel.allocPages('c', 0x1000);
    expect([one, four, two]).toEqual([0x4000_0000n, 0x4000_4000n, 0x4000_1000n]);
    kernel.bus.store64(one, 0xffffn);
    kernel.freePages('a', one);
    expect(kernel.allocPages('d', 0x1000)).toBe(one);
    expect(kernel.bus.load64(one)).toBe(0n);
    expect(kernel.pagesTaken).toEqual([one, two, four]);
  });

  test('ENOMEM when nothing fits; regions apart are not joined; a second free is a bug of the caller', () => {
    const kernel = new LocalKernel(
      machine([
        { base: 0x4000_0000n, size: 0x2000n },
        { base: 0x5000_0000n, size: 0x2000n },
      ]).bus,
    );
    expect(() => kernel.allocPages('big', 0x4000)).toThrow(/^ENOMEM/);
    const pages = [1, 2, 3, 4].map(() => kernel.allocPages('page', 0x1000));
    expect(() => kernel.allocPages('page', 1)).toThrow(/^ENOMEM/);
    for (const pa of pages) kernel.freePages('page', pa);
    expect(kernel.allocPages('two', 0x2000)).toBe(0x4000_0000n);
    expect(() => kernel.freePages('page', 0x5000_0000n)).toThrow(/not allocated/);
  });

  test('free runs are joined again on both sides, in any order', () => {
    const { bus } = machine();
    const pages = new PageAllocator(bus);
    const taken = Array.from({ length: 8 }, () => pages.alloc(0x1000) ?? 0n);
    for (const i of [1, 3, 2, 0, 7, 5, 6, 4]) pages.free(taken[i] ?? 0n);
    expect(pages.alloc(0x10_0000)).toBe(0x4000_0000n);
    expect(pages.used).toBe(1);
  });
});

describe('planned failures', () => {
  test('the nth use of a prefix fails, once', () => {
    const kernel = kernelOn();
    const plan = kernel.failNth(2, 'alloc:x');
    kernel.alloc('x');
    kernel.alloc('y');
    expect(() => kernel.alloc('xy')).toThrow(/^ENOMEM/);
    expect(plan.fired).toBe('alloc:xy');
    kernel.alloc('x');
  });

  test('user copies are EFAULT, ids ENOMEM, polls time out without a look at the hardware', () => {
    const kernel = kernelOn();
    kernel.failNth(1, 'copy:');
    expect(() => kernel.userCopy('vste')).toThrow(/^EFAULT/);
    kernel.failNth(1, 'ids:');
    const ids = kernel.ids('tag', 1, 2);
    expect(() => ids.alloc()).toThrow(/^ENOMEM/);
    kernel.failNth(1, 'poll:');
    let looks = 0;
    expect(kernel.poll('p', () => ++looks > 0)).toBe(false);
    expect(looks).toBe(0);
    expect(kernel.poll('p', () => ++looks > 0)).toBe(true);
  });
});

test('ids: lowest free first, the given errno when none is left, an error for a free id', () => {
  const ids = kernelOn().ids('tag', 1, 3, 'EBUSY');
  expect([ids.alloc(), ids.alloc(), ids.alloc()]).toEqual([1, 2, 3]);
  expect(() => ids.alloc()).toThrow(/^EBUSY/);
  ids.free(2);
  expect([ids.has(2), ids.used, ids.alloc()]).toEqual([false, 2, 2]);
  ids.free(1);
  expect(() => ids.free(1)).toThrow(/not allocated/);
});

describe('locks and interrupts', () => {
  const edges = () => {
    const board = machine();
    const kernel = new LocalKernel(board.bus, { pollTurns: 10 });
    return { kernel, raise: () => board.raise(200) };
  };

  test('a lock taken twice is a deadlock, and it is free again after an error', () => {
    const kernel = kernelOn();
    const lock = kernel.lock('one');
    expect(() => kernel.withLock(lock, () => kernel.withLock(lock, () => 0))).toThrow(/deadlock: one/);
    expect(lock.held).toBe(false);
    expect(kernel.withLock(lock, () => 7)).toBe(7);
  });

  test('a threaded handler waits for the release of the last lock; a hard one also runs in polls', () => {
    const { kernel, raise } = edges();
    const ran: string[] = [];
    kernel.requestIrq('t', 200, () => ran.push('threaded'));
    kernel.requestIrq('h', 200, () => ran.push('hard'), 'hard');
    kernel.withLock(kernel.lock('a'), () => {
      kernel.withLock(kernel.lock('b'), () => {
        raise();
        expect(ran).toEqual([]);
        kernel.poll('p', () => ran.length > 0);
        expect(ran).toEqual(['hard']);
      });
      expect(ran).toEqual(['hard']);
    });
    expect(ran).toEqual(['hard', 'threaded']);
  });

  test('an interrupt that arrives in its own handler runs it again afterwards, not inside', () => {
    const { kernel, raise } = edges();
    let depth = 0;
    let runs = 0;
    kernel.requestIrq('t', 200, () => {
      depth++;
      runs++;
      expect(depth).toBe(1);
      if (runs === 1) {
        raise();
        kernel.withLock(kernel.lock('inner'), () => 0);
      }
      depth--;
    });
    raise();
    kernel.runInterrupts();
    expect(runs).toBe(2);
  });
});

test('a poll is bounded: false after its turns', () => {
  let looks = 0;
  expect(kernelOn(5).poll('p', () => ++looks > 1000)).toBe(false);
  expect(looks).toBe(6);
});

test('points name what happens, in order', () => {
  const kernel = kernelOn();
  const points: string[] = [];
  const stop = kernel.onPoint((point) => points.push(point));
  kernel.withLock(kernel.lock('l'), () => kernel.alloc('a'));
  kernel.dmaWmb('b');
  kernel.read32('r', 0x0905_0000n);
  stop();
  kernel.alloc('unseen');
  expect(points).toEqual(['lock:l', 'alloc:a', 'unlock:l', 'barrier:b', 'mmio:r']);
});
