/** ELF core files: QEMU's `dump-guest-memory`, kdump's vmcore. Segments are read where they lie in the file. */
import { count, InputError } from './error.ts';
import { type ByteSource, ImageMemory } from './memory.ts';

const ELF_MAGIC = '\u007fELF';
const CLASS_64 = 2;
const LITTLE_ENDIAN = 1;
const PT_LOAD = 1;
/** More program headers than 16 bits can count: their number is in section header 0. */
const PN_XNUM = 0xffff;
/** Program headers that are read at most. */
const MAX_HEADERS = 1 << 20;

const textAt = (source: ByteSource, offset: number, length: number): string =>
  offset + length > source.length ? '' : Buffer.from(source.read(offset, length)).toString('latin1');

/** Whether a file is an ELF file. */
export const isElf = (source: ByteSource): boolean => textAt(source, 0, 4) === ELF_MAGIC;

/** What to say of a compressed dump, or undefined for other files. */
export function compressedKdump(source: ByteSource): string | undefined {
  const start = textAt(source, 0, Math.min(source.length, 16));
  if (!start.startsWith('KDUMP   ') && !start.startsWith('makedumpfile') && !start.startsWith('DISKDUMP'))
    return undefined;
  const flat = start.startsWith('makedumpfile') ? 'makedumpfile -R dump < file (a flattened dump), then ' : '';
  return `a compressed kdump is not read: make an ELF file of it with ${flat}makedumpfile -E, or dump-guest-memory without -z, -l, -s`;
}

/**
 * Memory of an ELF core file: its PT_LOAD segments at their physical addresses.
 * @throws InputError if the file is not a little-endian 64-bit ELF file, or a header lies outside it.
 */
export function memoryOfElf(source: ByteSource, name: string): ImageMemory {
  const need = (offset: number, length: number, what: string): DataView => {
    if (offset < 0 || offset + length > source.length)
      throw new InputError(`${name}: ${what} at byte ${offset} lies outside the file`);
    const bytes = source.read(offset, length);
    return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  };
  const header = need(0, 64, 'the ELF header');
  if (header.getUint8(4) !== CLASS_64 || header.getUint8(5) !== LITTLE_ENDIAN)
    throw new InputError(`${name}: not a little-endian 64-bit ELF file`);
  const phoff = Number(header.getBigUint64(0x20, true));
  const phentsize = header.getUint16(0x36, true);
  let phnum = header.getUint16(0x38, true);
  if (phnum === PN_XNUM)
    phnum = need(Number(header.getBigUint64(0x28, true)), 64, 'section header 0').getUint32(44, true);
  if (phentsize < 56 || phnum > MAX_HEADERS)
    throw new InputError(`${name}: ${count(phnum, 'program header')} of ${phentsize} bytes, which no core file has`);
  const memory = new ImageMemory();
  for (let i = 0; i < phnum; i++) {
    const entry = need(phoff + i * phentsize, 56, `program header ${i}`);
    if (entry.getUint32(0, true) !== PT_LOAD) continue;
    const offset = Number(entry.getBigUint64(8, true));
    const base = entry.getBigUint64(0x18, true);
    const length = Number(entry.getBigUint64(0x20, true));
    if (!Number.isSafeInteger(offset) || offset + length > source.length)
      throw new InputError(
        `${name}: segment ${i} ends at byte ${offset + length} of ${source.length}: the dump is cut short`,
      );
    memory.add({ base, length, name: `${name} segment ${i}`, source, offset });
  }
  if (memory.segments.length === 0) throw new InputError(`${name}: no PT_LOAD segment; this is no memory dump`);
  return memory;
}
