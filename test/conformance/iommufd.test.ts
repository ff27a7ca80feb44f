import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { replayDirectory, runIommufdConformance } from '../../src/lab/conformance/iommufd.ts';
import { replaySequence } from '../../src/lab/conformance/iommufd-replay.ts';
import { parseScenario, RecordingError, readRecording } from '../../src/lab/conformance/recording.ts';

const data = (name: string): string => fileURLToPath(new URL(`../data/${name}`, import.meta.url));
const NESTED = data('linux-7.2-iommufd-nested');
const RANDOM = data('linux-7.2-iommufd-random');

describe('Linux 7.2.13 as recorded', () => {
  test('the nested scenario: every result, id, output, word of memory, event, STE and command', () => {
    const [result] = replayDirectory(NESTED);
    expect(result).toMatchObject({ differences: [], ioctls: 42, dmas: 19, phases: 11 });
  });

  test('all 30 random sequences, many of their ioctls wrong on purpose', () => {
    const results = replayDirectory(RANDOM);
    expect(results.flatMap(({ name, differences }) => differences.map((each) => ({ name, ...each })))).toEqual([]);
    expect(results).toHaveLength(30);
    expect(results.reduce((sum, { ioctls }) => sum + ioctls, 0)).toBe(3152);
    expect(results.reduce((sum, { phases }) => sum + phases, 0)).toBe(240);
  });
});

describe('a replay finds what differs', () => {
  const recording = readRecording(NESTED, []);
  const [sequence] = recording.sequences;
  if (sequence === undefined) throw new Error('no sequence');
  const replay = (steps: typeof sequence.steps, phases = sequence.phases) =>
    replaySequence(recording, { ...sequence, steps, phases }).differences;

  test.each([
    ['a result', 'IOMMU_IOAS_ALLOC -> ok', 'IOMMU_IOAS_ALLOC -> EINVAL'],
    ['an id', 'out_veventq_id=6', 'out_veventq_id=5'],
    ['a DMA', 'iova=0x10000000 len=4 result=0xdead0002 (fault)', 'iova=0x10000000 len=4 result=0xdead0004 (done)'],
    ['a word of memory', 'gpa=0x80304010 word=0x12345678', 'gpa=0x80304010 word=0x12345679'],
    ['an event', '0000000000013000', '0000000000013004'],
  ])('%s', async (_what, from, to) => {
    const { readFile } = await import('node:fs/promises');
    const text = await readFile(`${NESTED}/scenario.txt`, 'utf8');
    expect(text).toContain(from);
    expect(replay(parseScenario(text.replace(from, to)))).toHaveLength(1);
  });

  test('a command, and a word of an STE', () => {
    const phases = structuredClone(sequence.phases) as (typeof sequence.phases)[number][];
    const bound = phases[1];
    const stream = phases[4]?.streams[0];
    if (bound === undefined || stream === undefined) throw new Error('no such stop');
    bound.commands[5] = '0007000000000011,0000000000000000';
    stream.ste[1] = '0x0';
    expect(replay(sequence.steps, phases).map(({ what }) => what.slice(0, 20))).toEqual([
      'phase iommufd-bound,',
      'phase nested-attache',
    ]);
  });

  test('exit codes: 0 equal, 1 different; input that is no recording is refused with its line', () => {
    const lines: string[] = [];
    expect(runIommufdConformance(NESTED, { out: (line) => lines.push(line) })).toBe(0);
    expect(lines).toEqual(['1 of 1 sequences equal: 42 ioctls, 19 DMAs, 11 stops, 79 commands']);
    expect(() => parseScenario('IOCTL X a=1 -> ok\nNONSENSE')).toThrow(
      new RecordingError("scenario.txt:2: 'NONSENSE' begins no line"),
    );
    expect(() => parseScenario('IOCTL X a=1')).toThrow('scenario.txt:1: no result');
  });
});
