import { describe, expect, test } from 'vitest';
import { fittingFlavours, labCase } from '../../src/testing/arbitraries/case.ts';
import { draw } from '../../src/testing/arbitraries/draw.ts';
import { runCampaign } from '../../src/testing/campaign.ts';
import { askAll, type LabCase, runCase } from '../../src/testing/case.ts';
import { Coverage } from '../../src/testing/coverage.ts';
import { FLAVOURS } from '../../src/testing/flavours/index.ts';
import { isolation, PROPERTIES, rulesKept, s2vmidOwned } from '../../src/testing/properties/index.ts';

const monitors = PROPERTIES.filter(({ run, cases }) => run === undefined && cases === undefined);

const text = (value: unknown): string =>
  JSON.stringify(value, (_, one) => (typeof one === 'bigint' ? `${one}n` : one instanceof Map ? [...one] : one));

/** Everything that a run of a case gives. */
const record = (one: LabCase): string => text(askAll(monitors, one));

describe('a case says all about its run', () => {
  const drawn = fittingFlavours(FLAVOURS, { maxOps: 60 }).map(
    ({ flavour, arbitrary }) => draw(arbitrary, `7 ${flavour.name}`).value,
  );

  test('the same case gives the same record, whatever ran before it, in either schedule', () => {
    const cases = drawn.flatMap((one): LabCase[] => [
      { ...one, config: { ...one.config, schedule: { mode: 'eager' } } },
      { ...one, config: { ...one.config, schedule: { mode: 'seeded', seed: 5 } } },
    ]);
    const first = cases.map(record);
    const backwards = cases.toReversed().map(record).toReversed();
    expect(backwards).toEqual(first);
    // The records are not the same because they are empty.
    expect(new Set(first).size).toBeGreaterThanOrEqual(drawn.length);
    for (const one of first) expect(one.length).toBeGreaterThan(200);
  });

  test('a case that went through JSON is the same case', () => {
    const one = drawn[0];
    if (one === undefined) throw new Error('no flavour');
    expect(record(JSON.parse(JSON.stringify(one)))).toBe(record(one));
  });

  test('isolation gives the same too', () => {
    const cases = [1, 2, 3].map((i) => draw(labCase(isolation, { maxOps: 30 }), `iso ${i}`).value);
    const once = cases.map((one) => text(runCase(isolation, one)));
    expect(cases.toReversed().map((one) => text(runCase(isolation, one)))).toEqual(once.toReversed());
  });
});

describe('run i of a campaign depends on the seed and i alone', () => {
  const options = { seed: 3, runs: 12, fixed: { maxOps: 30 } };

  test('not on which properties are asked', () => {
    const [alone] = runCampaign([s2vmidOwned], options);
    const [together] = runCampaign([s2vmidOwned, rulesKept], options);
    expect(together).toEqual(alone);
    expect(alone?.ops).toBeGreaterThan(100);
  });

  test('not on other runs: the shards make up the whole', () => {
    const ops = (shard?: { index: number; of: number }): number =>
      runCampaign([s2vmidOwned], { ...options, ...(shard === undefined ? {} : { shard }) })[0]?.ops ?? 0;
    expect(ops({ index: 0, of: 3 }) + ops({ index: 1, of: 3 }) + ops({ index: 2, of: 3 })).toBe(ops());
  });

  test('every flavour has its share of any sequence of runs', () => {
    const shares = Object.fromEntries(FLAVOURS.map(({ name, share = 1 }) => [name, share]));
    const runs = FLAVOURS.reduce((sum, { share = 1 }) => sum + share, 0);
    const coverage = new Coverage();
    runCampaign([s2vmidOwned], { seed: 9, runs, fixed: { maxOps: 1 }, coverage });
    expect(coverage.report().flavours).toEqual(shares);
  });
});
