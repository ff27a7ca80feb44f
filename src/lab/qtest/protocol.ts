/**
 * The qtest text protocol (QEMU, system/qtest.c): one request a line, one reply a line, numbers as C literals. Knows
 * the words, not the machine.
 */

/** What requests act on. Addresses are physical; accesses that nothing answers read 0 and write nothing. */
export interface QtestTarget {
  /** `size` is 1, 2, 4 or 8 bytes. */
  read(addr: bigint, size: number): bigint;
  write(addr: bigint, size: number, value: bigint): void;
  readBytes(addr: bigint, length: number): Uint8Array;
  writeBytes(addr: bigint, bytes: Uint8Array): void;
  /** From now on `raise` and `lower` are told of every wired interrupt, numbered as outputs or as inputs. */
  intercept(side: 'in' | 'out', level: (line: number, high: boolean) => void): void;
}

/** The longest block of a `read`, `write` or `memset`, in bytes. */
export const MAX_BLOCK = 1 << 24;
/** The longest request line, in characters: a `write` of the longest block. */
export const MAX_LINE = 2 * MAX_BLOCK + 128;

const MAX_ADDRESS = (1n << 64n) - 1n;
const SIZES: Readonly<Record<string, number>> = { b: 1, w: 2, l: 4, q: 8 };

/** A request that cannot be carried out; the message is what stands behind FAIL. */
class QtestError extends Error {}

/** One connection's view of the protocol. */
export class QtestSession {
  readonly #target: QtestTarget;
  /** Interrupt lines seen while a request ran; they follow its reply. */
  #irqs: string[] = [];
  #clock = 0n;

  constructor(target: QtestTarget) {
    this.#target = target;
  }

  /** Carries out one line (without its end) and returns the lines to send. An empty line is no request. */
  handle(line: string): string[] {
    const words = line.trim().split(/\s+/);
    const verb = words[0] ?? '';
    if (verb === '') return [];
    let reply: string;
    try {
      reply = this.#run(verb, words.slice(1));
    } catch (error) {
      if (!(error instanceof QtestError)) throw error;
      reply = `FAIL ${error.message}`;
    }
    const irqs = this.#irqs;
    this.#irqs = [];
    // As QEMU: an interrupt is announced when it happens, which is before the request's own reply.
    return [...irqs, reply];
  }

  #run(verb: string, args: string[]): string {
    const access = /^(read|write)([bwlq])$/.exec(verb);
    const size = SIZES[access?.[2] ?? ''];
    if (size !== undefined) return access?.[1] === 'read' ? this.#readWord(size, args) : this.#writeWord(size, args);
    const handler = HANDLERS[verb];
    if (handler === undefined) throw new QtestError(`Unknown command '${verb.slice(0, 64)}'`);
    return handler.call(this, args);
  }

  #readWord(size: number, args: string[]): string {
    const value = this.#target.read(address(args, 0, size), size);
    return `OK 0x${value.toString(16).padStart(16, '0')}`;
  }

  #writeWord(size: number, args: string[]): string {
    const value = number(args, 1, 'value') & ((1n << BigInt(size * 8)) - 1n);
    this.#target.write(address(args, 0, size), size, value);
    return 'OK';
  }

  /** The bytes of a `read` or `b64read`. */
  readBlock(args: string[]): Uint8Array {
    const length = block(args, 1);
    return this.#target.readBytes(address(args, 0, length), length);
  }

  /** Writes the bytes of a `write`, `b64write` or `memset`. */
  writeBlock(args: string[], bytes: Uint8Array): void {
    this.#target.writeBytes(address(args, 0, bytes.length), bytes);
  }

  intercept(side: 'in' | 'out'): void {
    this.#target.intercept(side, (line, high) => this.#irqs.push(`IRQ ${high ? 'raise' : 'lower'} ${line}`));
  }

  /** There is no clock here: it only remembers what it was set to. */
  set clock(ns: bigint) {
    this.#clock = ns;
  }

  get clock(): bigint {
    return this.#clock;
  }
}

/** The other verbs. `this` is the session. */
const HANDLERS: Readonly<Record<string, (this: QtestSession, args: string[]) => string>> = {
  read(args) {
    return `OK 0x${Buffer.from(this.readBlock(args)).toString('hex')}`;
  },
  b64read(args) {
    return `OK ${Buffer.from(this.readBlock(args)).toString('base64')}`;
  },
  write(args) {
    const length = block(args, 1);
    const digits = /^0x([0-9a-f]*)$/i.exec(args[2] ?? '')?.[1];
    if (digits === undefined) throw new QtestError('data is not hexadecimal digits behind 0x');
    // As QEMU: too few digits leave the rest zero.
    const bytes = new Uint8Array(length);
    bytes.set(Buffer.from(digits.length % 2 ? `${digits}0` : digits, 'hex').subarray(0, length));
    this.writeBlock(args, bytes);
    return 'OK';
  },
  b64write(args) {
    const length = block(args, 1);
    const bytes = Buffer.from(args[2] ?? '', 'base64');
    if (bytes.length !== length) throw new QtestError(`data has ${bytes.length} bytes, the request says ${length}`);
    this.writeBlock(args, bytes);
    return 'OK';
  },
  memset(args) {
    const length = number(args, 1, 'length');
    const value = number(args, 2, 'value');
    if (value > 0xffn) throw new QtestError('value is not a byte');
    if (length !== 0n) this.writeBlock(args, new Uint8Array(block(args, 1)).fill(Number(value)));
    return 'OK';
  },
  endianness() {
    return 'OK little';
  },
  clock_step(args) {
    if (args[0] !== undefined) this.clock += number(args, 0, 'step');
    return `OK ${this.clock}`;
  },
  clock_set(args) {
    this.clock = number(args, 0, 'time');
    return `OK ${this.clock}`;
  },
  irq_intercept_in() {
    this.intercept('in');
    return 'OK';
  },
  irq_intercept_out() {
    this.intercept('out');
    return 'OK';
  },
  set_irq_in() {
    return 'OK';
  },
};

/** A C literal: decimal, 0x hexadecimal, or octal with a leading 0. */
function number(args: string[], index: number, what: string): bigint {
  const text = args[index] ?? '';
  if (!/^(0[xX][0-9a-fA-F]{1,16}|0[0-7]{0,22}|[1-9][0-9]{0,19})$/.test(text))
    throw new QtestError(`${what} '${text.slice(0, 64)}' is not a number`);
  const value = /^0[0-7]/.test(text) ? BigInt(`0o${text.slice(1)}`) : BigInt(text);
  if (value > MAX_ADDRESS) throw new QtestError(`${what} does not fit 64 bits`);
  return value;
}

function address(args: string[], index: number, length: number): bigint {
  const addr = number(args, index, 'address');
  if (addr + BigInt(length) - 1n > MAX_ADDRESS) throw new QtestError('the access passes the end of the address space');
  return addr;
}

function block(args: string[], index: number): number {
  const length = number(args, index, 'length');
  if (length === 0n || length > BigInt(MAX_BLOCK)) throw new QtestError(`length ${length} is not in 1..${MAX_BLOCK}`);
  return Number(length);
}
