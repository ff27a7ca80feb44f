/**
 * The long fuzzing campaign, one million steps by default: `tsc -p tsconfig.json --noEmit false --outDir build`, then
 * `node build/bench/fuzz.js [steps] [first seed]` (or `node bench/fuzz.ts` where node takes TypeScript). Prints one line a
 * second on stderr; exits 1 with the seed and step of the first failure.
 */
import { Fuzzer } from '../test/hw/fuzzer.ts';

const RUN = 1000;
const steps = Number(process.argv[2] ?? 1_000_000);
const first = Number(process.argv[3] ?? 1);
const totals = { ok: 0, abort: 0, stall: 0 };
let said = performance.now();

for (let done = 0, seed = first; done < steps; done += RUN, seed++) {
  const fuzzer = new Fuzzer(seed);
  for (let i = 0; i < RUN; i++) {
    const before = performance.now();
    try {
      fuzzer.step();
    } catch (error) {
      console.error(`seed ${seed}, step ${i}:`, error);
      process.exit(1);
    }
    const took = performance.now() - before;
    if (took > 2000) {
      console.error(`seed ${seed}, step ${i} took ${Math.round(took)} ms`);
      process.exit(1);
    }
  }
  fuzzer.machine.drain();
  for (const end of ['ok', 'abort', 'stall'] as const) totals[end] += fuzzer.ends[end];
  if (performance.now() - said > 1000) {
    said = performance.now();
    console.error(`${done + RUN} steps, ${Math.round(process.memoryUsage().rss / 2 ** 20)} MiB`);
  }
}
console.log(`${steps} steps: accesses ended in data ${totals.ok}, abort ${totals.abort}, stall ${totals.stall}`);
