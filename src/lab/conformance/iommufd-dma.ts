/** A recorded DMA: whether it went through, and every word of the VMM's memory after it. */
import type { IommufdLab } from './iommufd-lab.ts';
import type { Step, VmFile } from './recording.ts';

/** A DMA line. */
export type DmaStep = Extract<Step, { kind: 'dma' }>;
/** A MEM line. */
export type MemStep = Extract<Step, { kind: 'mem' }>;

/** The word that test devices write. */
const DMA_WORD = 0x12345678;
/** The recorded device writes in pieces of this many bytes; each refused one is an event. */
const PIECE = 4;
const WORD = 4;

/** Memory that is compared after a DMA. */
const COMPARED = ['vm', 'file'] as const;

/** Runs the DMA and undoes what it changed, as the recorder did. @returns the differences */
export function replayDma(lab: IommufdLab, vm: VmFile, step: DmaStep, lines: readonly MemStep[]): string[] {
  // The first recording clears the words that it prints, prints them changed or not, and lets them stand.
  if (vm.areas === undefined) return replayFirstFormat(lab, vm, step, lines);
  const before = new Map<string, Uint8Array>();
  for (const name of COMPARED) if (lab.areas.has(name)) before.set(name, contents(lab, name));
  const differences = doDma(lab, step);
  const recorded = new Set(lines.map(({ area, at, word }) => printWord(area, at, word)));
  for (const [name, old] of before) {
    const base = name === 'vm' ? BigInt(vm.base) : 0n;
    for (const changed of changedWords(name, base, old, contents(lab, name)))
      if (!recorded.delete(changed)) differences.push(`DMA changed ${changed}, which is not recorded`);
    lab.area(name).pages.write(0, old);
  }
  for (const missing of recorded) differences.push(`DMA did not change ${missing}`);
  return differences;
}

function replayFirstFormat(lab: IommufdLab, vm: VmFile, step: DmaStep, lines: readonly MemStep[]): string[] {
  const { pages } = lab.area('vm');
  const offset = (line: MemStep): number => Number(line.at - BigInt(vm.base));
  for (const line of lines) pages.write(offset(line), new Uint8Array(WORD));
  const differences = doDma(lab, step);
  for (const line of lines) {
    const word = new DataView(pages.read(offset(line), WORD).buffer).getUint32(0, true);
    if (word !== line.word) differences.push(`${printWord('vm', line.at, word)}, recorded 0x${line.word.toString(16)}`);
  }
  return differences;
}

function contents(lab: IommufdLab, name: string): Uint8Array {
  const { pages } = lab.area(name);
  return pages.read(0, Number(pages.size));
}

function doDma(lab: IommufdLab, { bdf, iova, length, refused }: DmaStep): string[] {
  const word = new Uint8Array(PIECE);
  new DataView(word.buffer).setUint32(0, DMA_WORD, true);
  let done = true;
  for (let at = 0; at < length; at += PIECE) {
    const piece = word.subarray(0, Math.min(PIECE, length - at));
    if (!lab.device(bdf).dma(BigInt.asUintN(64, iova + BigInt(at)), piece)) done = false;
  }
  lab.kernel.runInterrupts();
  return done === refused ? [`DMA ${done ? 'went through' : 'was refused'}; the recorded one did not`] : [];
}

const printWord = (area: string, at: bigint, word: number): string =>
  `${area} 0x${at.toString(16)} = 0x${word.toString(16)}`;

function changedWords(name: string, base: bigint, before: Uint8Array, after: Uint8Array): string[] {
  const [old, now] = [before, after].map(
    (bytes) => new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / WORD),
  );
  const out: string[] = [];
  if (old === undefined || now === undefined) return out;
  for (let i = 0; i < now.length; i++)
    if (old[i] !== now[i]) out.push(printWord(name, base + BigInt(i * WORD), now[i] ?? 0));
  return out;
}
