import { expect, test } from 'vitest';
import { runVector } from '../../src/lab/conformance/vectors.ts';
import { readVectors } from '../../src/lab/conformance/vectors-file.ts';
import { VirtTarget } from '../../src/lab/qtest/virt-target.ts';

const vectors = readVectors(new URL('../data/qemu-vectors/vectors.jsonl.gz', import.meta.url).pathname);

/** Scenarios whose expectation docs/deviations.md shows to be wrong: both follow QEMU past a concatenated table. */
const WRONG_EXPECTATION = ['s2_only-26', 's2_only-44'];

test('every recorded scenario answers as the specification says [docs/conformance.md]', () => {
  expect(vectors.length).toBe(631);
  const differing = vectors.map((vector) => runVector(vector, new VirtTarget())).filter(({ ok }) => !ok);
  expect(differing.map(({ id }) => id)).toEqual(WRONG_EXPECTATION);
});

test('a concatenated start table is selected by the index [5.2 S2SL0]: F_WALK_EABT at the level 3 descriptor, not F_TRANSLATION', () => {
  const vector = vectors.find(({ id }) => id === 's2_only-26');
  if (vector === undefined) throw new Error('the scenario is gone');
  const { difference } = runVector(vector, new VirtTarget());
  // F_WALK_EABT (0x0b), StreamID 0x10, S2 = 1, CLASS = IN, FetchAddr 0xe0050ae0: the table at 0xe0050000 is no memory.
  expect(difference?.got).toEqual({
    prod: '0x00000001',
    cons: '0x00000000',
    records: ['0b00000010000000000000008002000050c85537f1020000e00a05e000000000'],
  });
});

test('a difference is found and named: the runner can fail', () => {
  const vector = vectors.find(({ id }) => id === 'gbpa-10');
  if (vector === undefined) throw new Error('the scenario is gone');
  const expected = vector.expected.with(0, '0x00001001');
  expect(runVector({ ...vector, expected }, new VirtTarget()).difference).toMatchObject({
    step: 1,
    op: 'r32',
    got: '0x00001000',
    expected: '0x00001001',
  });
});
