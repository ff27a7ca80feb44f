/** Translation against a second opinion ({@link opinion}): random memory, and well-formed structures with bits flipped. */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { NO_CONFIG_CACHE } from '../../src/hw/config-cache.ts';
import { NO_TLB } from '../../src/hw/tlb.ts';
import { Outcome, Transaction } from '../../src/hw/transaction.ts';
import { Translator } from '../../src/hw/translate.ts';
import { caps48 as caps, opinion, seen } from './oracle.ts';
import { BASE, type Case, cases, fill } from './translation-cases.ts';
import { labRegs } from './translation-lab.ts';

/** The case without hardware updates; the oracle has none. */
const still = (c: Case): Case => ({
  ...c,
  stes: c.stes.map((one) => ({ ...one, S2HA: 0, S2HD: 0, EATS: 0 })),
  cds: c.cds.map((one) => ({ ...one, HA: 0, HD: 0 })),
});

/** Compares every access of a case; how many ended in an address, and which events were met. */
function compare(c: Case): { ok: number; events: Set<number> } {
  const memory = fill(still(c));
  const regs = { ...labRegs(), LOG2SIZE: 3 };
  const cold = new Translator(memory, caps, regs, { tlb: NO_TLB, configCache: NO_CONFIG_CACHE });
  const warm = new Translator(memory, caps, regs, { choices: { contiguous: false } });
  const events = new Set<number>();
  let ok = 0;
  for (const one of c.accesses) {
    const t = Object.assign(new Transaction(), one, { access: 0, isSpeculative: false });
    const expected = opinion(memory, caps, BASE, t);
    warm.tlb.clear();
    for (const smmu of [cold, warm]) {
      smmu.translate(t);
      expect(seen(t)).toBe(expected);
    }
    events.add(t.event);
    if (t.outcome === Outcome.Ok) ok++;
  }
  return { ok, events };
}

test('address, event, stage, class and IPA are those of a plain bigint walk over any memory [DDI 0487 D8, 7.3.22]', () => {
  fc.assert(
    fc.property(cases, (c) => {
      compare(c);
    }),
    { numRuns: 400 },
  );
});

test('the comparison meets addresses and every kind of fault', () => {
  const events = new Set<number>();
  let ok = 0;
  for (const c of fc.sample(cases, { seed: 3, numRuns: 400 })) {
    const met = compare(c);
    ok += met.ok;
    for (const event of met.events) events.add(event);
  }
  expect(ok).toBeGreaterThan(100);
  for (const event of [0x04, 0x06, 0x08, 0x0a, 0x0b, 0x10, 0x11, 0x12, 0x13]) expect(events).toContain(event);
});
