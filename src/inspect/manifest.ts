/** Manifests of memory images: registers and images of one SMMU at one or several points in time. */
import { closeSync, fstatSync, openSync, readFileSync, readSync } from 'node:fs';
import { dirname, isAbsolute, join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { z } from 'zod';
import { count, InputError } from './error.ts';
import { type ByteSource, bufferSource, ImageMemory } from './memory.ts';
import { registerNamed } from './registers.ts';

/** Largest image that is unpacked into memory, in bytes. Plain files are read piece by piece and may be larger. */
export const MAX_UNPACKED = 2 ** 30;

/** Largest manifest that is read, in bytes. */
export const MAX_MANIFEST = 2 ** 26;

const LIMIT = 1n << 64n;

const number64 = z
  .union([z.string().regex(/^(0[xX][0-9a-fA-F]+|[0-9]+)$/, 'is not a number'), z.number().int().nonnegative()])
  .transform((value) => BigInt(value))
  .refine((value) => value < LIMIT, 'does not fit 64 bits');

const size = number64.refine((value) => value <= BigInt(Number.MAX_SAFE_INTEGER), 'is too large').transform(Number);

const register = z.union([number64, z.object({ value: number64 }).transform(({ value }) => value)]);

const page = z.object({ gpa: number64, bytes: size, file_offset: size });

const image = z.object({
  what: z.string().default('image'),
  gpa: number64,
  length: size,
  file: z.string().min(1),
  pages: z
    .array(page)
    .max(1 << 20)
    .optional(),
});

const point = z.object({
  registers: z.record(z.string(), register).optional(),
  dumps: z
    .array(image)
    .max(1 << 16)
    .default([]),
});

const schema = z.object({
  registers: z.record(z.string(), register).optional(),
  dumps: z
    .array(image)
    .max(1 << 16)
    .optional(),
  phases: z
    .array(point.extend({ phase: z.string().min(1) }))
    .min(1)
    .max(1 << 12)
    .optional(),
});

/** One image of a manifest. */
export type ManifestImage = z.infer<typeof image>;

/** Registers and images at one point in time. */
export interface ManifestPhase {
  /** Undefined in a manifest without phases. */
  readonly phase: string | undefined;
  /** Register values by name, up to 64 bits. */
  readonly registers: ReadonlyMap<string, bigint>;
  readonly dumps: readonly ManifestImage[];
}

/** A manifest as read: its phases in order, at least one. */
export interface Manifest {
  /** The file it came from. */
  readonly path: string;
  /** Whether the manifest lists phases, so that its dump is a list. */
  readonly hasPhases: boolean;
  readonly phases: readonly ManifestPhase[];
}

const reasonOf = (error: unknown): string => {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (code === 'ENOENT') return 'there is no such file';
  if (code === 'EISDIR') return 'it is a directory';
  if (code === 'EACCES') return 'it may not be read';
  if (code === 'ERR_BUFFER_TOO_LARGE') return 'it unpacks to more bytes than it may';
  return error instanceof Error ? error.message : String(error);
};

/** A file's bytes. @throws InputError that names the file and the reason. */
export function readInput(path: string, limit: number): Uint8Array {
  try {
    const bytes = readFileSync(path);
    if (bytes.length > limit)
      throw new InputError(`${path}: ${count(bytes.length, 'byte')}; at most ${limit} are read`);
    return bytes;
  } catch (error) {
    if (error instanceof InputError) throw error;
    throw new InputError(`${path}: ${reasonOf(error)}`);
  }
}

/** Reads a manifest. @throws InputError that names the file, the entry, and what was expected there. */
export function readManifest(path: string): Manifest {
  const text = Buffer.from(readInput(path, MAX_MANIFEST)).toString('utf8');
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch (error) {
    throw new InputError(`${path}: not JSON: ${reasonOf(error).split('\n')[0]}`);
  }
  const parsed = schema.safeParse(data);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new InputError(`${path}: ${issue?.path.join('.') || 'manifest'}: ${issue?.message ?? 'not a manifest'}`);
  }
  const common = parsed.data.registers ?? {};
  const named = (registers: Record<string, bigint> | undefined): ReadonlyMap<string, bigint> =>
    new Map(Object.entries({ ...common, ...registers }).map(([key, value]) => [registerNamed(key) ?? key, value]));
  const phases = parsed.data.phases?.map(({ phase, registers, dumps }) => ({
    phase,
    registers: named(registers),
    dumps,
  }));
  if (phases !== undefined) return { path, hasPhases: true, phases };
  if (parsed.data.dumps === undefined)
    throw new InputError(`${path}: neither phases nor dumps; one of them lists the images`);
  return { path, hasPhases: false, phases: [{ phase: undefined, registers: named({}), dumps: parsed.data.dumps }] };
}

/** A plain file, read where it is asked for. Each read opens it, so that no descriptor is left behind. */
function fileSource(path: string): ByteSource {
  const use = <T>(act: (fd: number) => T): T => {
    const fd = openSync(path, 'r');
    try {
      return act(fd);
    } finally {
      closeSync(fd);
    }
  };
  return {
    length: use((fd) => fstatSync(fd).size),
    read: (offset, length) =>
      use((fd) => {
        const bytes = new Uint8Array(length);
        const got = readSync(fd, bytes, 0, length, offset);
        if (got !== length) throw new InputError(`${path}: ${count(got, 'byte')} at ${offset}, ${length} expected`);
        return bytes;
      }),
  };
}

const GZIP_MAGIC = [0x1f, 0x8b] as const;

/**
 * An image file, unpacked if it is gzip.
 * @param limit bytes that it may unpack to
 * @throws InputError if it is missing, broken, or too large to unpack
 */
export function openImage(path: string, limit: number = MAX_UNPACKED): ByteSource {
  try {
    const plain = fileSource(path);
    if (plain.length < 2) return plain;
    const magic = plain.read(0, 2);
    if (magic[0] !== GZIP_MAGIC[0] || magic[1] !== GZIP_MAGIC[1]) return plain;
    return bufferSource(gunzipSync(readInput(path, MAX_UNPACKED), { maxOutputLength: limit }));
  } catch (error) {
    if (error instanceof InputError) throw error;
    throw new InputError(`${path}: ${reasonOf(error)}`);
  }
}

/** Reads image files once, for several phases that share them. */
export class ImageFiles {
  readonly #open = new Map<string, ByteSource>();

  /** The file at `path`, which unpacks to `length` bytes. */
  source(path: string, length: number): ByteSource {
    let source = this.#open.get(path);
    if (source === undefined) {
      source = openImage(path, Math.min(length + 1, MAX_UNPACKED));
      this.#open.set(path, source);
    }
    return source;
  }
}

/**
 * The memory of one phase.
 * @throws InputError if an image is missing, shorter than the manifest says, or differs from another where both lie.
 */
export function memoryOf(manifest: Manifest, phase: ManifestPhase, files = new ImageFiles()): ImageMemory {
  const memory = new ImageMemory();
  const where = phase.phase === undefined ? manifest.path : `${manifest.path}: phase ${phase.phase}`;
  for (const { file, gpa, length, pages } of phase.dumps) {
    try {
      const source = files.source(isAbsolute(file) ? file : join(dirname(manifest.path), file), length);
      if (source.length !== length)
        throw new InputError(`${file} has ${count(source.length, 'byte')}, the manifest says ${length}`);
      // Pages of a table tree are stored one after the other, but each has an address of its own.
      for (const piece of pages ?? [{ gpa, bytes: length, file_offset: 0 }]) {
        if (piece.file_offset + piece.bytes > length)
          throw new InputError(
            `${file}: page 0x${piece.gpa.toString(16)} ends at byte ${piece.file_offset + piece.bytes} of ${length}`,
          );
        memory.add({ base: piece.gpa, length: piece.bytes, name: file, source, offset: piece.file_offset });
      }
    } catch (error) {
      if (error instanceof InputError) throw new InputError(`${where}: ${error.message}`);
      throw error;
    }
  }
  return memory;
}
