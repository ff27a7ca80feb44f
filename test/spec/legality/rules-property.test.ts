import fc from 'fast-check';
import { expect, test } from 'vitest';
import { CD } from '../../../spec/cd.ts';
import type { Words } from '../../../spec/layout.ts';
import { CD_RULES, cdProblems, firstCdProblem } from '../../../spec/legality/cd.ts';
import { firstSteProblem, STE_RULES, steProblems } from '../../../spec/legality/ste.ts';
import { STE } from '../../../spec/ste.ts';
import { sampleCaps } from '../caps-samples.ts';

const record = fc.uint32Array({ minLength: 16, maxLength: 16 }).map((array): Words => Uint32Array.from(array));
const caps = fc.constantFrom(
  undefined,
  sampleCaps(),
  sampleCaps({ IDR0: { TTF: 3, HTTU: 3, STALL_MODEL: 1, VMID16: 0, ASID16: 0, CD2L: 0 } }),
  sampleCaps({ IDR3: { S1PI: 1, S2PI: 1, S2PO: 1, STT: 1, DPT: 1, MPAM: 1 }, IDR5: { DS: 1, VAX: 1 }, MPAMIDR: 3 }),
);

test('on any record, the first problem is the first of all problems, and each message gives absolute bits', () => {
  fc.assert(
    fc.property(record, caps, (words, smmu) => {
      const before = words.slice();
      const ste = steProblems(words, smmu);
      const cd = cdProblems(words, smmu);
      expect(firstSteProblem(words, smmu)).toEqual(ste[0]);
      expect(firstCdProblem(words, smmu)).toEqual(cd[0]);
      for (const { message } of [...ste, ...cd]) expect(message).toMatch(/\(bits \d+:\d+/);
      expect(words).toEqual(before);
    }),
    { numRuns: 300 },
  );
});

test('rules have ids of their own and name fields that exist', () => {
  const ids = [...STE_RULES, ...CD_RULES].map(({ id }) => id);
  expect(new Set(ids).size).toBe(ids.length);
  const known = new Set<string>([...STE.names, ...CD.names, 'SKL0', 'SKL1']);
  for (const { id, fields } of [...STE_RULES, ...CD_RULES])
    for (const field of fields) expect(known.has(field), `${id}: ${field}`).toBe(true);
});
