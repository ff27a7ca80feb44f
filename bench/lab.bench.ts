/**
 * Operations a second and core with every property and the sanitizer asked, on drawn cases of the default length and long
 * ones: what a campaign costs. Drawing the cases, making and closing their labs are part of it.
 */
import { runCampaign } from '../src/testing/campaign.ts';
import { PROPERTIES } from '../src/testing/properties/index.ts';
import { line, processorTime } from './stack.ts';

const SEED = 1;
/** Operations of a case at most; undefined: the default. And cases for one round. */
const LENGTHS = [
  { what: 'default cases', maxOps: undefined, runs: 150 },
  { what: 'cases of up to 1,000', maxOps: 1000, runs: 30 },
] as const;
const ROUNDS = 5;
/** Runs before anything is measured: a campaign soon has all of the stack compiled, a hundred runs have not. */
const WARM_UP = 1200;

/** All that are asked on one case; `isolation` runs cases of its own. */
const monitors = PROPERTIES.filter(({ run, cases }) => run === undefined && cases === undefined);

runCampaign(monitors, { seed: SEED + ROUNDS, runs: WARM_UP });
for (const schedule of ['eager', 'seeded'] as const)
  for (const { what, maxOps, runs } of LENGTHS) {
    const speeds: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const fixed = { schedule, ...(maxOps === undefined ? {} : { maxOps }) };
      const before = processorTime();
      const [report] = runCampaign(monitors, { seed: SEED + round, runs, fixed });
      const seconds = (processorTime() - before) / 1e9;
      if (report?.ok !== true) throw new Error(`seed ${SEED + round}: ${report?.findings[0]?.finding.message}`);
      speeds.push(report.ops / seconds);
    }
    const median = Math.round(speeds.sort((a, b) => a - b)[ROUNDS >> 1] ?? 0);
    line(`checked operations, ${schedule}, ${what}`, `${median.toLocaleString('en')} /s`, 'bar 20,000 /s');
  }
