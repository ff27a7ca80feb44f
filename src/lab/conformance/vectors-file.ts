/** Reads a file of scenarios, replays them, and prints what differs. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { VirtTarget } from '../qtest/virt-target.ts';
import { runVector, type Vector, type VectorResult, vectorSchema } from './vectors.ts';

/** Most bytes of a file of scenarios, uncompressed. */
const MAX_BYTES = 1 << 30;

/** Where results go. */
export interface ConformanceOutput {
  readonly json: boolean;
  out(line: string): void;
}

/** The scenarios of a `.jsonl` or `.jsonl.gz` file. @throws Error naming file and line, and what was expected there */
export function readVectors(path: string): Vector[] {
  const raw = readFileSync(path);
  const gzip = raw[0] === 0x1f && raw[1] === 0x8b;
  const text = (gzip ? gunzipSync(raw, { maxOutputLength: MAX_BYTES }) : raw).toString('utf8');
  const vectors: Vector[] = [];
  for (const [i, line] of text.split('\n').entries()) {
    if (line.trim() === '') continue;
    const where = `${path}:${i + 1}`;
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch {
      throw new Error(`${where}: the line is not JSON`);
    }
    const parsed = vectorSchema.safeParse(value);
    if (!parsed.success) {
      const [issue] = parsed.error.issues;
      throw new Error(`${where}: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'not a scenario'}`);
    }
    vectors.push(parsed.data);
  }
  return vectors;
}

/** Replays every scenario of a file, each on a fresh machine. Returns the exit code: 1 if any differs. */
export function runVectorsFile(path: string, { json, out }: ConformanceOutput): number {
  const results = readVectors(path).map((vector) => runVector(vector, new VirtTarget()));
  const wrong = results.filter(({ ok }) => !ok);
  if (json) out(JSON.stringify({ total: results.length, differing: wrong.length, results }, null, 2));
  else {
    for (const result of wrong) out(describe(result));
    for (const line of totals(results)) out(line);
  }
  return wrong.length === 0 ? 0 : 1;
}

function describe({ id, title, difference }: VectorResult): string {
  const show = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value));
  const lines = [`${id}: ${title}`];
  if (difference !== undefined)
    lines.push(
      `  step ${difference.step} (${difference.op})`,
      `    got      ${show(difference.got)}`,
      `    expected ${show(difference.expected)}`,
    );
  return lines.join('\n');
}

function totals(results: readonly VectorResult[]): string[] {
  const families = new Map<string, { ok: number; all: number }>();
  for (const { family, ok } of results) {
    const count = families.get(family) ?? { ok: 0, all: 0 };
    families.set(family, { ok: count.ok + (ok ? 1 : 0), all: count.all + 1 });
  }
  const width = Math.max(0, ...[...families.keys()].map((name) => name.length));
  const right = results.filter(({ ok }) => ok).length;
  return [
    ...[...families].map(([name, { ok, all }]) => `${name.padEnd(width)}  ${ok} of ${all}`),
    `${right} of ${results.length} scenarios answer as expected`,
  ];
}
