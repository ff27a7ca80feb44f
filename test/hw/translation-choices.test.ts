/** Options of docs/impdef.md, section Translation, that no other test turns; and what walk caches must remember. */
import { describe, expect, test } from 'vitest';
import { Lab, labCaps, RAM } from './translation-lab.ts';

const AF = 1n << 10n;

describe('choices', () => {
  test('alloccfgWithoutMtcfg: ALLOCCFG counts although MTCFG=0, or does not [5.2 ALLOCCFG]', () => {
    for (const [alloccfgWithoutMtcfg, expected] of [
      [true, 0],
      [false, 6],
    ] as const) {
      const lab = new Lab(labCaps(), { choices: { alloccfgWithoutMtcfg } });
      lab.ste(1, { Config: 'BYPASS', ALLOCCFG: 0b1000 });
      lab.go(1, 0x1000n);
      expect(lab.t.alloc).toBe(expected);
      lab.ste(2, { Config: 'BYPASS', ALLOCCFG: 0b1000, MTCFG: 1, MemAttr: 15 });
      lab.go(2, 0x1000n);
      expect(lab.t.alloc).toBe(0);
    }
  });

  test('httuUncached: updates with Non-cacheable walks work, or are F_WALK_EABT [5.2 S2IR0, 5.4 IR0]', () => {
    for (const [httuUncached, IR0, expected] of [
      ['atomic', 0, '0x40001000'],
      ['abort', 0, 'Abort event=0xb S2=0'],
      ['abort', 1, '0x40001000'],
    ] as const) {
      const lab = new Lab(labCaps(), { choices: { httuUncached } });
      const root = lab.pages();
      const at = lab.map(1, root, 0x1000n, 0x4000_1000n, { AF: 0 });
      lab.ste(1, { Config: 'S1_TRANS', S1ContextPtr: lab.cd({ TTB0: root >> 4n, HA: 1, IR0, OR0: 1 }) >> 6n });
      expect(lab.go(1, 0x1000n)).toBe(expected);
      expect(lab.memory.read64(at) & AF).toBe(expected.startsWith('0x') ? AF : 0n);
    }
  });

  test('httuUncached=abort at stage 2: S2=1 and the address of the stage 2 descriptor', () => {
    const lab = new Lab(labCaps(), { choices: { httuUncached: 'abort' } });
    const root = lab.pages();
    const at = lab.map(2, root, 0x1000n, 0x4000_1000n, { AF: 0 });
    lab.ste(1, { Config: 'S2_TRANS', ...lab.s2(root, 1), S2HA: 1 });
    expect(lab.go(1, 0x1000n)).toContain('Abort event=0xb S2=1');
    expect(lab.t.fetchLo >>> 0).toBe(Number(at));
  });

  test('contiguous=false: each descriptor of a run is an entry of its own', () => {
    const lab = new Lab(labCaps(), { choices: { contiguous: false } });
    const root = lab.pages();
    lab.map(1, root, 0x1_0000n, RAM, { Contiguous: 1 });
    lab.ste(1, { Config: 'S1_TRANS', S1ContextPtr: lab.cd({ TTB0: root >> 4n }) >> 6n });
    lab.go(1, 0x1_0000n);
    expect(lab.t.sizeLog2).toBe(12);
  });
});

describe('what a cached Table descriptor remembers [3.17]', () => {
  test('restrictions of all levels above hold for a walk that starts in the middle', () => {
    const lab = new Lab();
    const root = lab.pages();
    lab.map(1, root, 0x1000n, RAM, {}, { table: { APTable: 2, UXNTable: 1 } });
    lab.map(1, root, 0x2000n, RAM + 0x1000n);
    lab.ste(1, { Config: 'S1_TRANS', S1ContextPtr: lab.cd({ TTB0: root >> 4n }) >> 6n });
    expect(lab.go(1, 0x1000n)).toBe('0x40000000');
    const steps = lab.t.stepCount;
    expect(lab.go(1, 0x2000n, { isWrite: true })).toBe('Abort event=0x13 S2=0');
    expect(lab.t.stepCount).toBeLessThan(steps);
    expect(lab.go(1, 0x2000n, { InD: true })).toBe('Abort event=0x13 S2=0');
    expect(lab.go(1, 0x2000n)).toBe('0x40001000');
  });

  test('a walk that starts in the middle sees what the tables below hold now', () => {
    const lab = new Lab();
    const root = lab.pages();
    lab.map(1, root, 0x1000n, RAM);
    lab.ste(1, { Config: 'S1_TRANS', S1ContextPtr: lab.cd({ TTB0: root >> 4n }) >> 6n });
    lab.go(1, 0x1000n);
    // The root is gone, its cached descriptors are not.
    lab.memory.write64(root, 0n);
    expect(lab.go(1, 0x2000n)).toBe('Abort event=0x10 S2=0');
    lab.smmu.tlb.clear();
    expect(lab.go(1, 0x1000n)).toBe('Abort event=0x10 S2=0');
  });
});

test('AFFD is IGNORED while HA=1: a leaf whose flag hardware did not set is not cached [5.4 AFFD, 3.13.1]', () => {
  const lab = new Lab();
  const root = lab.pages();
  lab.map(2, root, 0x1000n, 0x4000_1000n, { AF: 0, S2AP: 1 });
  lab.ste(1, { Config: 'S2_TRANS', ...lab.s2(root, 1), S2HA: 1, S2AFFD: 1 });
  // The write is refused, so the flag stays clear.
  expect(lab.go(1, 0x1000n, { isWrite: true })).toContain('event=0x13');
  expect([...lab.smmu.tlb.holdings()].filter((h) => h.cache === 'ipa')).toEqual([]);
  expect(lab.go(1, 0x1000n)).toBe('0x40001000');
});
