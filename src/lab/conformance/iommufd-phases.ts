/** phases.json: STEs and commands at each stop, compared with what lies in memory and went through the queue. */
import { CD, STE, toQwords, type Words } from '../../../spec/index.ts';
import type { IommufdLab } from './iommufd-lab.ts';
import type { PhaseRecord, StreamRecord } from './recording.ts';

/** STE.Config of stage 1 alone: the kernel's own tables stand in it. */
const CONFIG_S1 = STE.field('Config').values?.S1_TRANS;

/** Compares one sequence's stops in their order. */
export class PhaseChecker {
  readonly #lab: IommufdLab;
  readonly #phases: readonly PhaseRecord[];
  #next = 0;
  /** Commands since the last stop, and after which line how many. */
  #commands: string[] = [];
  #afterLine: [number, number][] = [];
  /** Stops compared. */
  checked = 0;
  /** Commands compared. */
  commands = 0;

  constructor(lab: IommufdLab, phases: readonly PhaseRecord[]) {
    this.#lab = lab;
    this.#phases = phases;
    // What probing queued belongs to no operation.
    lab.takeCommands();
  }

  /** Notes the commands of the operation that `line` ends. */
  endOfOperation(line: number): void {
    const commands = this.#lab.takeCommands();
    if (commands.length === 0) return;
    this.#commands.push(...commands);
    this.#afterLine.push([line, commands.length]);
  }

  /** Compares a stop. @returns the differences */
  check(name: string): string[] {
    const phase = this.#phases[this.#next++];
    const commands = this.#commands;
    const afterLine = this.#afterLine;
    this.#commands = [];
    this.#afterLine = [];
    if (phase === undefined || phase.phase !== name) return [`phase ${name}: recorded ${phase?.phase ?? 'none'}`];
    this.checked++;
    const differences = this.#compareStreams(phase);
    // Before anything happens, the recorded machine has probed other functions too.
    if (this.#next === 1) return differences;
    this.commands += commands.length;
    differences.push(...compareCommands(phase, commands, afterLine));
    return differences;
  }

  #compareStreams(phase: PhaseRecord): string[] {
    const differences: string[] = [];
    const tags = new Map<string, bigint>();
    for (const stream of phase.streams) {
      const ste = this.#lab.ste(Number(stream.sid));
      const tables = STE.address(ste, 'S2TTB');
      const masked = maskHost(ste);
      const recorded = maskHost(wordsOf(stream.ste));
      const prefix = `phase ${phase.phase}, STE ${stream.sid}`;
      for (const [i, word] of toQwords(masked).entries()) {
        const want = toQwords(recorded)[i];
        if (word !== want)
          differences.push(`${prefix} word ${i}: 0x${word.toString(16)}, recorded 0x${want?.toString(16)}`);
      }
      if (stream.s2ttb !== undefined && !sameTag(tags, stream.s2ttb, tables))
        differences.push(`${prefix}: S2TTB is not that of tag ${stream.s2ttb}`);
      differences.push(...this.#compareCd(stream, ste, prefix));
    }
    return differences;
  }

  #compareCd(stream: StreamRecord, ste: Words, prefix: string): string[] {
    if (stream.cd === undefined) return [];
    const bytes = this.#lab.machine.bus.loadBytes(STE.address(ste, 'S1ContextPtr'), CD.bytes);
    const cd = new Uint32Array(bytes.slice().buffer);
    CD.set(cd, 'TTB0', 0n);
    const recorded = stream.cd.map((word) => BigInt(word));
    return toQwords(cd).flatMap((word, i) =>
      word === recorded[i]
        ? []
        : [`${prefix} CD word ${i}: 0x${word.toString(16)}, recorded 0x${recorded[i]?.toString(16)}`],
    );
  }
}

/** Equal tags are equal tables, other tags are others. */
function sameTag(tags: Map<string, bigint>, tag: string, table: bigint): boolean {
  const known = tags.get(tag);
  if (known !== undefined) return known === table;
  const fresh = ![...tags.values()].includes(table);
  tags.set(tag, table);
  return fresh;
}

function wordsOf(qwords: readonly string[]): Words {
  const words = STE.zero();
  for (const [i, text] of qwords.entries()) {
    words[2 * i] = Number(BigInt(text) & 0xffffffffn);
    words[2 * i + 1] = Number(BigInt(text) >> 32n);
  }
  return words;
}

/** The host's own addresses are its own: zero. */
function maskHost(ste: Words): Words {
  const words = ste.slice();
  STE.set(words, 'S2TTB', 0n);
  if (STE.num(words, 'Config') === CONFIG_S1) STE.set(words, 'S1ContextPtr', 0n);
  return words;
}

function compareCommands(phase: PhaseRecord, got: readonly string[], gotLines: readonly [number, number][]): string[] {
  const differences: string[] = [];
  const { commands: recorded, after_line: lines } = phase;
  const at = recorded.findIndex((command, i) => command !== got[i]);
  if (at >= 0 || got.length !== recorded.length) {
    const i = at >= 0 ? at : recorded.length;
    const where = lineOf(gotLines, i);
    differences.push(
      `phase ${phase.phase}, command ${i + 1} of ${recorded.length} (ours: line ${where}): ${got[i] ?? 'none'}, recorded ${recorded[i] ?? 'none'}`,
    );
  }
  if (lines === undefined || differences.length > 0) return differences;
  // What comes after the last pair belongs to the lines up to the stop.
  for (const [i, [line, count]] of lines.entries()) {
    const mine = gotLines[i];
    if (mine?.[0] === line && mine[1] === count) continue;
    differences.push(
      `phase ${phase.phase}: ${count} commands after line ${line}, ours ${mine?.[1] ?? 0} after line ${mine?.[0] ?? '-'}`,
    );
    break;
  }
  return differences;
}

/** The line whose operation queued command `index`. */
function lineOf(lines: readonly [number, number][], index: number): number {
  let seen = 0;
  for (const [line, count] of lines) {
    seen += count;
    if (index < seen) return line;
  }
  return 0;
}
