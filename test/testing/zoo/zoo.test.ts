import { describe, expect, test } from 'vitest';
import { PROPERTIES } from '../../../src/testing/properties/index.ts';
import { hunt, ZOO } from '../../../src/testing/zoo/index.ts';

/** Bugs that a short hunt finds, each in a second or so. */
const QUICK = [
  's2-vmid-leaks',
  'nested-ste-vmid-0',
  'tlbi-before-cfgi',
  'flush-by-nh-all-only',
  'vmid-not-flushed',
  'asid-not-flushed',
  'ste-torn',
  'ste-words-without-sync',
  'ste-without-cfgi',
  'ste-not-reset',
  'bypass-without-stage2',
  'abort-vste-bypasses',
  'blocked-is-bypass',
  'leaf-for-a-new-table',
  'strtab-l2-not-visible',
  'mev-not-safe',
  'guest-vmid-kept',
  'guest-commands-not-waited-for',
  'vdevice-of-two-streams',
];

describe('the bug zoo (issue 6, item 7)', () => {
  test.each(QUICK)('%s is found', (name) => {
    const bug = ZOO.find((one) => one.name === name);
    if (bug === undefined) throw new Error(`no bug ${name}`);
    expect(hunt(bug, { seed: 1, runs: 60, properties: PROPERTIES }).catch).not.toBeNull();
  });

  test('every bug has a name of its own and a story', () => {
    expect(new Set(ZOO.map(({ name }) => name)).size).toBe(ZOO.length);
    for (const { name, story } of ZOO) {
      expect(name).toMatch(/^[a-z0-9][a-z0-9.-]*$/);
      expect(story.length).toBeGreaterThan(40);
    }
  });
});
