/** Recordings of a kernel's iommufd: the files of a directory, read and checked (zod), and the lines of scenario.txt. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';

const hexNumber = z.string().regex(/^0x[0-9a-f]+$/i);
const hexBytes = z.string().regex(/^([0-9a-f]{2})*$/i);

const vmSchema = z.object({
  base: hexNumber,
  size: hexNumber,
  areas: z
    .array(
      z.object({
        name: z.string(),
        user_va: hexNumber.optional(),
        size: hexNumber,
        access: z.string(),
      }),
    )
    .optional(),
  writes: z.array(z.object({ before: z.number().int().min(1), gpa: hexNumber, hex: hexBytes })),
});

const registersSchema = z.record(z.string(), z.union([hexNumber, z.object({ value: hexNumber })]));

const phasesSchema = z.object({
  registers: registersSchema.optional(),
  phases: z.array(
    z.object({
      phase: z.string(),
      streams: z.array(
        z.object({
          sid: hexNumber,
          config: z.number(),
          ste: z.array(hexNumber).length(8),
          vmid: z.number().optional(),
          s2ttb: z.string().optional(),
          asid: z.number().optional(),
          cd: z.array(hexNumber).optional(),
        }),
      ),
      commands: z.array(z.string().regex(/^[0-9a-f]{16},[0-9a-f]{16}$/)),
      after_line: z.array(z.tuple([z.number(), z.number()])).optional(),
    }),
  ),
});

/** vm.json: memory of the VMM and what it writes into it. */
export type VmFile = z.infer<typeof vmSchema>;
/** One stop of phases.json. */
export type PhaseRecord = z.infer<typeof phasesSchema>['phases'][number];
/** One stream at a stop. */
export type StreamRecord = PhaseRecord['streams'][number];

/** One line of scenario.txt. */
export type Step =
  | ({ readonly kind: 'ioctl'; readonly line: number; readonly name: string } & Call)
  | ({ readonly kind: 'read' | 'write'; readonly line: number } & Call)
  | {
      readonly kind: 'dma';
      readonly line: number;
      readonly bdf: string;
      readonly iova: bigint;
      readonly length: number;
      readonly refused: boolean;
    }
  | {
      readonly kind: 'mem';
      readonly line: number;
      readonly area: 'vm' | 'file';
      readonly at: bigint;
      readonly word: number;
    }
  | { readonly kind: 'vevent'; readonly line: number; readonly event: Vevent | null }
  | {
      readonly kind: 'close';
      readonly line: number;
      readonly what: 'fd' | 'device' | 'iommufd';
      readonly fields: Fields;
    }
  | { readonly kind: 'phase'; readonly line: number; readonly name: string }
  | { readonly kind: 'reset'; readonly line: number };

/** A vEVENT as the first recording prints it. */
export interface Vevent {
  readonly sequence: number;
  readonly flags: number;
  readonly words: readonly bigint[];
}

/** name=value pairs of a line. */
export type Fields = ReadonlyMap<string, string>;

/** What goes in and what came out. */
interface Call {
  readonly inputs: Fields;
  readonly result: string;
  readonly outputs: Fields;
}

/** One sequence: lines and stops. */
export interface Sequence {
  readonly name: string;
  readonly steps: readonly Step[];
  readonly phases: readonly PhaseRecord[];
}

/** A directory of recordings. */
export interface Recording {
  readonly vm: VmFile;
  /** Register values by name. */
  readonly registers: ReadonlyMap<string, number>;
  readonly sequences: readonly Sequence[];
}

/** Input that is not a recording. */
export class RecordingError extends Error {
  override readonly name = 'RecordingError';
}

const MAX_FILE = 64 * 1024 * 1024;

function readText(path: string): string {
  const text = readFileSync(path, 'utf8');
  if (text.length > MAX_FILE) throw new RecordingError(`${path}: more than ${MAX_FILE} characters`);
  return text;
}

function readJson<T>(path: string, schema: z.ZodType<T>): T {
  let value: unknown;
  try {
    value = JSON.parse(readText(path));
  } catch (error) {
    throw new RecordingError(`${path}: ${error instanceof Error ? error.message : String(error)}`);
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw new RecordingError(`${path}: ${issue?.path.join('.')}: ${issue?.message}`);
}

function pairs(words: readonly string[], line: number): Fields {
  const out = new Map<string, string>();
  for (const word of words) {
    const at = word.indexOf('=');
    if (at <= 0) throw new RecordingError(`scenario.txt:${line}: '${word}' is not name=value`);
    out.set(word.slice(0, at), word.slice(at + 1));
  }
  return out;
}

/** A value of a pair that must be there. @throws RecordingError */
export function field(fields: Fields, name: string, line: number): string {
  const value = fields.get(name);
  if (value === undefined) throw new RecordingError(`scenario.txt:${line}: ${name} is missing`);
  return value;
}

/** A C literal, perhaps negative. @throws RecordingError */
export function integer(text: string, line: number): bigint {
  if (!/^-?(0x[0-9a-f]+|\d+)$/i.test(text)) throw new RecordingError(`scenario.txt:${line}: '${text}' is not a number`);
  return text.startsWith('-') ? -BigInt(text.slice(1)) : BigInt(text);
}

function call(words: readonly string[], line: number): Call {
  const arrow = words.indexOf('->');
  const result = words[arrow + 1];
  if (arrow < 0 || result === undefined) throw new RecordingError(`scenario.txt:${line}: no result`);
  return { inputs: pairs(words.slice(0, arrow), line), result, outputs: pairs(words.slice(arrow + 2), line) };
}

function dma(words: readonly string[], line: number): Step {
  const fields = pairs(words.slice(0, -1), line);
  const end = words.at(-1);
  if (end !== '(fault)' && end !== '(done)')
    throw new RecordingError(`scenario.txt:${line}: '${end}' ends no DMA line`);
  const length = Number(integer(field(fields, 'len', line), line));
  return {
    kind: 'dma',
    line,
    bdf: field(fields, 'bdf', line),
    iova: integer(field(fields, 'iova', line), line),
    length,
    refused: end === '(fault)',
  };
}

function mem(words: readonly string[], line: number): Step {
  const fields = pairs(words, line);
  const area = fields.has('file') ? 'file' : 'vm';
  const at = integer(field(fields, area === 'file' ? 'file' : 'gpa', line), line);
  return { kind: 'mem', line, area, at, word: Number(integer(field(fields, 'word', line), line)) };
}

function vevent(words: readonly string[], line: number): Step {
  if (words[1] === 'none') return { kind: 'vevent', line, event: null };
  const fields = pairs(words.slice(1, 3), line);
  const [sequence, flags] = ['seq', 'flags'].map((name) => Number(integer(field(fields, name, line), line)));
  const event = {
    sequence: sequence ?? 0,
    flags: flags ?? 0,
    words: words.slice(3).map((word) => BigInt(`0x${word}`)),
  };
  return { kind: 'vevent', line, event };
}

function close(words: readonly string[], line: number): Step {
  const [what] = words;
  if (what !== 'fd' && what !== 'device' && what !== 'iommufd')
    throw new RecordingError(`scenario.txt:${line}: cannot close ${what}`);
  return {
    kind: 'close',
    line,
    what,
    fields: pairs(
      words.slice(1).filter((word) => word.includes('=')),
      line,
    ),
  };
}

/** One line; undefined for the header. @throws RecordingError */
function parseLine(text: string, line: number): Step | undefined {
  const [head, ...words] = text.split(' ').filter((word) => word !== '');
  switch (head) {
    case 'IOCTL': {
      const [name = '', ...rest] = words;
      return { kind: 'ioctl', line, name, ...call(rest, line) };
    }
    case 'READ':
      return { kind: 'read', line, ...call(words, line) };
    case 'WRITE':
      return { kind: 'write', line, ...call(words, line) };
    case 'DMA':
      return dma(words, line);
    case 'MEM':
      return mem(words, line);
    case 'VEVENT':
      return vevent(words, line);
    case 'CLOSE':
      return close(words, line);
    case '@@PHASE':
      return { kind: 'phase', line, name: words.join(' ') };
    case '@@SEQ':
      return undefined;
    case 'RESET':
      return { kind: 'reset', line };
    default:
      throw new RecordingError(`scenario.txt:${line}: '${head}' begins no line`);
  }
}

/** The steps of a scenario.txt. @throws RecordingError */
export function parseScenario(text: string): Step[] {
  const steps: Step[] = [];
  for (const [i, line] of text.split('\n').entries()) {
    const step = line.trim() === '' ? undefined : parseLine(line.trimEnd(), i + 1);
    if (step !== undefined) steps.push(step);
  }
  return steps;
}

function readSequence(dir: string, name: string): { sequence: Sequence; registers: z.infer<typeof registersSchema> } {
  const { phases, registers = {} } = readJson(join(dir, 'phases.json'), phasesSchema);
  return { sequence: { name, steps: parseScenario(readText(join(dir, 'scenario.txt'))), phases }, registers };
}

/**
 * Reads a directory: one sequence in it, or one in each numbered sub-directory.
 * @throws RecordingError for what is not a recording; Error of the file system
 */
export function readRecording(dir: string, names: readonly string[]): Recording {
  const vm = readJson(join(dir, 'vm.json'), vmSchema);
  const sequences: Sequence[] = [];
  let registers: z.infer<typeof registersSchema> = {};
  if (existsSync(join(dir, 'scenario.txt'))) {
    const one = readSequence(dir, '');
    sequences.push(one.sequence);
    registers = one.registers;
  }
  for (const name of names) sequences.push(readSequence(join(dir, name), name).sequence);
  if (sequences.length === 0) throw new RecordingError(`${dir}: no scenario.txt in it or in a numbered directory`);
  const file = join(dir, 'registers.json');
  if (existsSync(file)) registers = readJson(file, z.object({ registers: registersSchema })).registers;
  const values = new Map<string, number>();
  for (const [name, value] of Object.entries(registers)) {
    const wide = BigInt(typeof value === 'string' ? value : value.value);
    if (wide <= 0xffff_ffffn) values.set(name, Number(wide));
  }
  return { vm, registers: values, sequences };
}
