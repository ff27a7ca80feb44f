/** Register values from text: names and values, an MMIO trace, a dump of the register pages, or JSON. */
import { MIN_FOOTPRINT, REGISTERS } from '../../spec/registers.ts';
import { InputError } from './error.ts';
import { looksLikeHexdump, memoryOfHexdump } from './hexdump.ts';
import type { ImageMemory } from './memory.ts';

/** Byte offset of a register from the base of the register pages. */
const offsetOf = (register: (typeof REGISTERS)[number]): number =>
  register.offset + (register.page === 'page1' ? 0x10000 : 0);

const BY_NAME = new Map(
  REGISTERS.filter(({ page }) => page === 'page0' || page === 'page1').map((one) => [one.name, one]),
);

const BY_OFFSET = new Map([...BY_NAME.values()].map((one) => [offsetOf(one), one]));

/** A register's value by name; Linux's and QEMU's prefixes are taken off. Undefined for an unknown name. */
export function registerNamed(name: string): string | undefined {
  const plain = name.toUpperCase().replace(/^(ARM_)?SMMU(V3)?_/, '');
  return BY_NAME.has(plain) ? plain : undefined;
}

/** Name of the register at a byte offset from the base of the register pages. */
export const registerAt = (offset: number): string | undefined => BY_OFFSET.get(offset)?.name;

/** `R|W offset size value` of an MMIO trace: the last access of each register counts. */
const ACCESS = /^\s*[RW]\s+(0x[0-9a-fA-F]+)\s+([48])\s+(0x[0-9a-fA-F]+)\s*$/;
const NAMED = /\b([A-Za-z][A-Za-z0-9_]*)\b[^\S\n]*(?:\([^)]*\))?[^\S\n]*(?:[:=]|->)?[^\S\n]*(0x[0-9a-fA-F]{1,16})\b/g;

function addAccess(out: Map<string, bigint>, offset: number, size: number, value: bigint): void {
  const register = BY_OFFSET.get(offset);
  if (register !== undefined) out.set(register.name, BigInt.asUintN(register.bytes * 8, value));
  const upper = BY_OFFSET.get(offset - 4);
  if (size === 4 && register === undefined && upper?.bytes === 8)
    out.set(upper.name, BigInt.asUintN(32, out.get(upper.name) ?? 0n) | (value << 32n));
}

/** Registers of a memory image that holds the register pages at `base`. */
export function registersOfPages(memory: ImageMemory, base: bigint): Map<string, bigint> {
  const out = new Map<string, bigint>();
  for (const register of BY_NAME.values()) {
    const words = memory.readWords(base + BigInt(offsetOf(register)), register.bytes);
    if (words !== undefined) out.set(register.name, (BigInt(words[1] ?? 0) << 32n) | BigInt(words[0] ?? 0));
  }
  return out;
}

function fromPages(text: string, name: string): Map<string, bigint> {
  const memory = memoryOfHexdump(text, name, 0n);
  const first = memory.segments[0]?.base ?? 0n;
  return registersOfPages(memory, first & ~BigInt(MIN_FOOTPRINT - 1));
}

function fromJson(text: string, name: string): Map<string, bigint> | undefined {
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof data !== 'object' || data === null) return undefined;
  const table =
    'registers' in data && typeof data.registers === 'object' && data.registers !== null ? data.registers : data;
  const out = new Map<string, bigint>();
  for (const [key, entry] of Object.entries(table)) {
    const register = registerNamed(key);
    const value: unknown = typeof entry === 'object' && entry !== null && 'value' in entry ? entry.value : entry;
    if (register === undefined || (typeof value !== 'string' && typeof value !== 'number')) continue;
    if (!/^(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})$/.test(String(value)))
      throw new InputError(`${name}: ${key}: '${value}' is not a number`);
    out.set(register, BigInt(value));
  }
  return out;
}

/**
 * Registers from text, guessed from its shape.
 * @throws InputError if no register is found in it
 */
export function registersOfText(text: string, name: string): Map<string, bigint> {
  const json = fromJson(text, name);
  let out = json ?? new Map<string, bigint>();
  if (json === undefined) {
    for (const line of text.split('\n')) {
      const access = ACCESS.exec(line);
      if (access !== null) addAccess(out, Number(access[1]) % MIN_FOOTPRINT, Number(access[2]), BigInt(access[3] ?? 0));
      else
        for (const [, key = '', value = ''] of line.matchAll(NAMED)) {
          const register = registerNamed(key);
          if (register !== undefined) out.set(register, BigInt(value));
        }
    }
    if (out.size === 0 && looksLikeHexdump(text)) out = fromPages(text, name);
  }
  if (out.size === 0)
    throw new InputError(
      `${name}: no register in it: neither NAME 0xVALUE, nor an MMIO trace, nor a dump of the register pages`,
    );
  return out;
}
