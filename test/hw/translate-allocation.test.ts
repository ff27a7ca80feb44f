import { expect, test } from 'vitest';
import { NO_TLB } from '../../src/hw/tlb.ts';
import { Outcome } from '../../src/hw/transaction.ts';
import type { TranslatorOptions } from '../../src/hw/translation-options.ts';
import { ipaOf, Lab, labCaps, RAM, RAM_SIZE } from './translation-lab.ts';

/** Translations measured; one object or boxed number in each would be at least 12 bytes. */
const COUNT = 200_000;
const PER_TRANSLATION = 4;

/** A nested stream 5 whose stage 1 maps 16 pages. */
function nested(options: TranslatorOptions): Lab {
  const lab = new Lab(labCaps(), options);
  const [s1, s2] = [lab.pages(), lab.pages()];
  for (let at = RAM; at < RAM + RAM_SIZE; at += 0x20_0000n) lab.map(2, s2, ipaOf(at), at, {}, { level: 2 });
  for (let i = 0n; i < 16n; i++) lab.map(1, s1, 0x1000n * i, ipaOf(0xffff_f000n & (RAM + i * 0x1000n)), {}, { ipaOf });
  lab.ste(5, { Config: 'NESTED', S1ContextPtr: ipaOf(lab.cd({ TTB0: ipaOf(s1) >> 4n })) >> 6n, ...lab.s2(s2, 7) });
  return lab;
}

for (const [name, options] of [
  ['TLB hits', {}],
  ['walks with the TLB off', { tlb: NO_TLB }],
  ['walks that fill a TLB of four entries', { tlb: small(4) }],
] as const)
  test(`the translate path allocates nothing: ${name} [design: numbers]`, () => {
    const lab = nested(options);
    const { t, smmu } = lab;
    lab.go(5, 0n);
    const run = (n: number): void => {
      for (let i = 0; i < n; i++) {
        t.addrLo = (i & 15) << 12;
        smmu.translate(t);
        if (t.outcome !== Outcome.Ok) throw new Error(`event ${t.event}`);
      }
    };
    run(COUNT);
    // The least of a few tries: the test runner allocates now and then.
    let least = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 5; round++) {
      const before = process.memoryUsage().heapUsed;
      run(COUNT);
      const grown = process.memoryUsage().heapUsed - before;
      // A collection in between says nothing.
      if (grown >= 0) least = Math.min(least, grown);
    }
    expect(least / COUNT).toBeLessThan(PER_TRANSLATION);
  });

function small(entries: number) {
  const shape = { entries, ways: 4, replacement: 'lru' } as const;
  return { va: shape, ipa: shape, s1Tables: shape, s2Tables: shape };
}
