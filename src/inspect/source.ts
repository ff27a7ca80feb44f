/** Where memory and registers come from: a manifest, a directory with one, an ELF core file, raw images, text dumps. */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { compressedKdump, isElf, memoryOfElf } from './elf.ts';
import { InputError } from './error.ts';
import { looksLikeHexdump, memoryOfHexdump } from './hexdump.ts';
import { ImageFiles, memoryOf, openImage, readManifest } from './manifest.ts';
import { type ByteSource, ImageMemory } from './memory.ts';
import type { Registers } from './stream-table.ts';

/** Memory and registers of one SMMU at one point in time. */
export interface Snapshot {
  /** Point in time, of a manifest with phases. */
  readonly phase: string | undefined;
  readonly registers: Registers;
  /** Reads the images. @throws InputError if one is missing, short, or disagrees with another. */
  memory(): ImageMemory;
}

/** What was given: its points in time, in order. */
export interface Source {
  readonly name: string;
  /** Whether the source lists phases, so that its dump is a list. */
  readonly hasPhases: boolean;
  readonly snapshots: readonly Snapshot[];
}

/** Largest text that is read as a dump, in bytes. */
const MAX_TEXT_DUMP = 2 ** 28;

/** `FILE@ADDRESS`: a raw image and where it lies. */
const PLACED = /^(.+)@((?:0[xX])?[0-9a-fA-F]+)$/;

const isText = (bytes: Uint8Array): boolean =>
  bytes.every((byte) => (byte >= 0x20 && byte < 0x7f) || byte === 9 || byte === 10 || byte === 13);

function isDirectory(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}

const start = (source: ByteSource): Uint8Array => source.read(0, Math.min(source.length, 4096));

function manifestSource(path: string, registers: Registers): Source {
  const manifest = readManifest(path);
  const files = new ImageFiles();
  const snapshots = manifest.phases.map((phase) => ({
    phase: phase.phase,
    registers: new Map([...phase.registers, ...registers]),
    memory: () => memoryOf(manifest, phase, files),
  }));
  return { name: path, hasPhases: manifest.hasPhases, snapshots };
}

/** Adds one file to a memory. base: where a raw image lies, or where a text dump counts from. */
function addFile(memory: ImageMemory, path: string, source: ByteSource, base: bigint | undefined): void {
  const refused = compressedKdump(source);
  if (refused !== undefined) throw new InputError(`${path}: ${refused}`);
  const add = (other: ImageMemory): void => {
    for (const segment of other.segments) memory.add(segment);
  };
  if (isElf(source)) {
    add(memoryOfElf(source, path));
    return;
  }
  const head = start(source);
  if (source.length > 0 && source.length <= MAX_TEXT_DUMP && isText(head)) {
    const text = Buffer.from(source.read(0, source.length)).toString('latin1');
    if (looksLikeHexdump(text)) {
      add(memoryOfHexdump(text, path, base ?? 0n));
      return;
    }
  }
  if (base === undefined)
    throw new InputError(
      `${path}: a raw image needs its address: ${path}@0x40000000; else a manifest, an ELF core file or a text dump`,
    );
  memory.add({ base, length: source.length, name: path, source, offset: 0 });
}

/** What comes before anything else in a JSON object, blanks aside. */
const looksLikeJson = (source: ByteSource): boolean => /^\s*\{/.test(Buffer.from(start(source)).toString('latin1'));

/**
 * Opens what the arguments name: one manifest or a directory that holds `manifest.json`; or any number of ELF core
 * files, text dumps, and raw images as `FILE@ADDRESS` or with `base`.
 * @param registers values that are given beside it; they come before those of a manifest
 * @throws InputError that names the file and the reason
 */
export function openSource(paths: readonly string[], registers: Registers, base?: bigint): Source {
  const [first, ...more] = paths;
  if (first === undefined)
    throw new InputError('no image: a manifest, a directory, an ELF core file, FILE@ADDRESS or a text dump');
  if (more.length === 0 && isDirectory(first)) return manifestSource(join(first, 'manifest.json'), registers);
  const memory = new ImageMemory();
  for (const path of paths) {
    const placed = PLACED.exec(path);
    const file = placed?.[1] ?? path;
    const source = openImage(file);
    if (more.length === 0 && placed === null && base === undefined && looksLikeJson(source))
      return manifestSource(path, registers);
    const at = placed === null ? base : BigInt(`0x${(placed[2] ?? '0').replace(/^0x/i, '')}`);
    addFile(memory, file, source, at);
  }
  return { name: first, hasPhases: false, snapshots: [{ phase: undefined, registers, memory: () => memory }] };
}

/** The snapshot of a phase, by default the last. @throws InputError that lists the phases. */
export function snapshotOf(source: Source, phase: string | undefined): Snapshot {
  const found = phase === undefined ? source.snapshots.at(-1) : source.snapshots.find((one) => one.phase === phase);
  if (found !== undefined) return found;
  const names = source.snapshots.flatMap((one) => (one.phase === undefined ? [] : [one.phase]));
  throw new InputError(
    `phase '${phase}' is not one of ${names.length === 0 ? 'none' : names.join(', ')} in ${source.name}`,
  );
}
