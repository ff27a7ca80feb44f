/** `conformance iommufd DIR`: replays recorded iommufd sequences through the real ioctls. */
import { readdirSync } from 'node:fs';
import { type ReplayResult, replaySequence } from './iommufd-replay.ts';
import { readRecording } from './recording.ts';

/** How results are printed. */
export interface ConformanceOutput {
  readonly json?: boolean;
  readonly out: (line: string) => void;
}

/** Numbered sub-directories in numerical order. */
function sequenceNames(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && /^\d+$/.test(entry.name))
    .map((entry) => entry.name)
    .sort((a, b) => Number(a) - Number(b));
}

/** Replays all sequences of a directory. @throws RecordingError for input that is not a recording */
export function replayDirectory(dir: string): ReplayResult[] {
  const recording = readRecording(dir, sequenceNames(dir));
  return recording.sequences.map((sequence) => replaySequence(recording, sequence));
}

/**
 * Replays all sequences of a directory and prints the first difference of each, and totals.
 * @returns 0 if all are equal, 1 if any differs
 * @throws RecordingError for input that is not a recording
 */
export function runIommufdConformance(dir: string, { json = false, out }: ConformanceOutput): number {
  const results = replayDirectory(dir);
  const different = results.filter(({ differences }) => differences.length > 0);
  const sum = (of: (result: ReplayResult) => number): number => results.reduce((total, each) => total + of(each), 0);
  const totals = {
    sequences: results.length,
    equal: results.length - different.length,
    ioctls: sum(({ ioctls }) => ioctls),
    dmas: sum(({ dmas }) => dmas),
    phases: sum(({ phases }) => phases),
    commands: sum(({ commands }) => commands),
  };
  if (json) out(JSON.stringify({ totals, different }));
  else {
    for (const { name, differences } of different) {
      const [first] = differences;
      const where = name === '' ? 'scenario.txt' : `${name}/scenario.txt`;
      out(`${where}:${first?.line}: ${first?.what} (${differences.length} differences)`);
    }
    const { sequences, equal, ioctls, dmas, phases, commands } = totals;
    out(
      `${equal} of ${sequences} sequences equal: ${ioctls} ioctls, ${dmas} DMAs, ${phases} stops, ${commands} commands`,
    );
  }
  return different.length > 0 ? 1 : 0;
}
