/**
 * Replays recorded scenarios (one JSON object a line; the format of test/data/qemu-vectors) on the qtest machine and
 * compares what is observed with what a conforming SMMU answers.
 */
import { z } from 'zod';
import { eventOf, knownBits } from '../../../spec/events.ts';
import {
  ITD_ATTRIBUTES,
  ITD_DOORBELL,
  ITD_GPA_HI,
  ITD_GPA_LO,
  ITD_IOVA_HI,
  ITD_IOVA_LO,
  ITD_LENGTH,
  ITD_RESULT,
  ITD_RUN,
} from '../../../spec/iommu-testdev.ts';
import type { Register } from '../../../spec/layout.ts';
import {
  CMDQ_BASE,
  CMDQ_CONS,
  CMDQ_PROD,
  EVENTQ_CONS,
  EVENTQ_PROD,
  GERROR,
  GERRORN,
  PAGE1,
} from '../../../spec/registers.ts';
import type { QtestTarget } from '../qtest/protocol.ts';
import { TEST_FUNCTIONS, VIRT } from '../qtest/virt-target.ts';

const MAX_BYTES = 1 << 24;
const hex = z.string().regex(/^0x[0-9a-fA-F]{1,16}$/);
const length = z.int().min(0).max(MAX_BYTES);
const soft = { soft: z.boolean().optional(), mask: hex.optional() };

const step = z.discriminatedUnion('op', [
  z.object({
    op: z.literal('mem'),
    addr: hex,
    hex: z
      .string()
      .regex(/^([0-9a-fA-F]{2})*$/)
      .max(2 * MAX_BYTES),
  }),
  z.object({ op: z.enum(['w32', 'w64']), off: hex, val: hex }),
  z.object({ op: z.enum(['r32', 'r64']), off: hex, ...soft }),
  z.object({ op: z.literal('pr32'), addr: hex, ...soft }),
  z.object({
    op: z.literal('dma'),
    dev: z
      .int()
      .min(0)
      .max(TEST_FUNCTIONS.length - 1),
    iova: hex,
    gpa: hex,
    len: z.int().min(0).max(0xffffffff),
    attrs: z.int().min(0).max(0xffffffff).optional(),
    arm: z.int().min(0).max(1).optional(),
    ...soft,
  }),
  z.object({ op: z.literal('rdmem'), addr: hex, len: length, ...soft }),
  z.object({ op: z.literal('evq'), base: hex, log2: z.int().min(0).max(19), first: z.boolean().optional(), ...soft }),
]);

const queue = z.object({ prod: z.string(), cons: z.string(), records: z.array(z.string()) });
const observation = z.union([z.string(), queue]);

/** One scenario. */
export const vectorSchema = z.object({
  id: z.string(),
  family: z.string(),
  title: z.string(),
  tags: z.array(z.string()),
  steps: z.array(step).max(100_000),
  expected: z.array(observation),
  accepted: z.array(z.array(observation)).optional(),
});

export type Vector = z.infer<typeof vectorSchema>;
type Step = Vector['steps'][number];
type Observation = z.infer<typeof observation>;

/** How one scenario went. `difference` is the first one, against `expected`. */
export interface VectorResult {
  readonly id: string;
  readonly family: string;
  readonly title: string;
  readonly ok: boolean;
  readonly difference?: {
    readonly step: number;
    readonly op: string;
    readonly got: Observation;
    readonly expected: Observation;
  };
}

/** What was seen at an observing step, and which of its bits count. */
interface Seen {
  readonly step: number;
  readonly op: string;
  readonly got: Observation;
  readonly counts: (value: Observation) => string;
}

/** Replays one scenario on a machine at power-on. */
export function runVector(vector: Vector, target: QtestTarget): VectorResult {
  const seen: Seen[] = [];
  vector.steps.forEach((s, index) => {
    const one = perform(s, index, target);
    if (one !== undefined) seen.push(one);
  });
  const wrong = [vector.expected, ...(vector.accepted ?? [])].map((answers) => firstDifference(seen, answers));
  const { id, family, title } = vector;
  if (wrong.includes(undefined)) return { id, family, title, ok: true };
  const at = wrong[0] ?? 0;
  const { step: stepIndex, op, got } = seen[at] ?? { step: vector.steps.length, op: 'end', got: '' };
  const expected = vector.expected[at] ?? '(no further observation)';
  return { id, family, title, ok: false, difference: { step: stepIndex, op, got, expected } };
}

function firstDifference(seen: readonly Seen[], answers: readonly Observation[]): number | undefined {
  for (let i = 0; i < Math.max(seen.length, answers.length); i++) {
    const [one, answer] = [seen[i], answers[i]];
    if (one === undefined || answer === undefined || one.counts(one.got) !== one.counts(answer)) return i;
  }
  return undefined;
}

const whole = (value: Observation): string => JSON.stringify(value).toLowerCase();
const bits =
  (mask: bigint) =>
  (value: Observation): string =>
    typeof value === 'string' && value.startsWith('0x') ? (BigInt(value) & mask).toString(16) : whole(value);
const nothing = (): string => '';
const word = (value: bigint, bytes: number): string => `0x${value.toString(16).padStart(bytes * 2, '0')}`;
const ALL = (1n << 64n) - 1n;

function perform(s: Step, index: number, target: QtestTarget): Seen | undefined {
  const see = (got: Observation, counts: (value: Observation) => string): Seen => {
    const isSoft = 'soft' in s && s.soft === true;
    return { step: index, op: s.op, got, counts: isSoft ? nothing : counts };
  };
  const mask = 'mask' in s && s.mask !== undefined ? BigInt(s.mask) : ALL;
  switch (s.op) {
    case 'mem':
      target.writeBytes(BigInt(s.addr), Buffer.from(s.hex, 'hex'));
      return undefined;
    case 'w32':
    case 'w64':
      target.write(VIRT.smmu + BigInt(s.off), s.op === 'w32' ? 4 : 8, BigInt(s.val));
      return undefined;
    case 'r32':
    case 'r64': {
      const size = s.op === 'r32' ? 4 : 8;
      const got = target.read(VIRT.smmu + BigInt(s.off), size);
      return see(word(got, size), bits(mask & meaningful(target, Number(s.off))));
    }
    case 'pr32':
      return see(word(target.read(BigInt(s.addr), 4), 4), bits(mask));
    case 'dma':
      return see(word(BigInt(dma(s, target)), 4), bits(mask));
    case 'rdmem':
      return see(Buffer.from(target.readBytes(BigInt(s.addr), s.len)).toString('hex'), whole);
    case 'evq':
      return see(readEventQueue(s, target), (value) => eventQueueCounts(value, s));
  }
}

function dma(s: Extract<Step, { op: 'dma' }>, target: QtestTarget): number {
  const bar = TEST_FUNCTIONS[s.dev]?.bar ?? 0n;
  const put = (register: Register, value: bigint): void =>
    target.write(bar + BigInt(register.offset), 4, value & 0xffffffffn);
  put(ITD_IOVA_LO, BigInt(s.iova));
  put(ITD_IOVA_HI, BigInt(s.iova) >> 32n);
  put(ITD_LENGTH, BigInt(s.len));
  put(ITD_GPA_LO, BigInt(s.gpa));
  put(ITD_GPA_HI, BigInt(s.gpa) >> 32n);
  put(ITD_ATTRIBUTES, BigInt(s.attrs ?? ITD_ATTRIBUTES.value({ Space: 'NON_SECURE', SpaceValid: 1 })));
  put(ITD_DOORBELL, BigInt(s.arm ?? 1));
  target.read(bar + BigInt(ITD_RUN.offset), 4);
  return Number(target.read(bar + BigInt(ITD_RESULT.offset), 4));
}

const smmuRead = (target: QtestTarget, register: Register): number =>
  Number(
    target.read(
      VIRT.smmu + BigInt(register.page === 'page1' ? PAGE1 + register.offset : register.offset),
      register.bytes,
    ) & 0xffffffffn,
  );

/** Bits of a register that its architecture gives a meaning now: queue indices and CMDQ_CONS.ERR come and go. */
function meaningful(target: QtestTarget, offset: number): bigint {
  const indexBits = (base: Register<typeof CMDQ_BASE.fields>): number =>
    2 ** (base.num(new Uint32Array([smmuRead(target, base as Register), 0]), 'LOG2SIZE') + 1) - 1;
  if (offset === CMDQ_PROD.offset) return BigInt(indexBits(CMDQ_BASE) & CMDQ_PROD.bit('WR'));
  if (offset === CMDQ_CONS.offset) {
    const active = (smmuRead(target, GERROR) ^ smmuRead(target, GERRORN)) & GERROR.bit('CMDQ_ERR');
    return BigInt(((indexBits(CMDQ_BASE) & CMDQ_CONS.bit('RD')) | (active ? CMDQ_CONS.bit('ERR') : 0)) >>> 0);
  }
  return ALL;
}

function readEventQueue(s: Extract<Step, { op: 'evq' }>, target: QtestTarget): Observation {
  const [prod, cons] = [smmuRead(target, EVENTQ_PROD), smmuRead(target, EVENTQ_CONS)];
  const wrap = 2 ** (s.log2 + 1);
  const count = Math.min((((prod - cons) % wrap) + wrap) % wrap, wrap / 2);
  const records: string[] = [];
  for (let i = 0; i < count; i++) {
    const slot = (cons + i) % (wrap / 2);
    records.push(Buffer.from(target.readBytes(BigInt(s.base) + BigInt(slot * 32), 32)).toString('hex'));
  }
  return { prod: word(BigInt(prod), 4), cons: word(BigInt(cons), 4), records };
}

/** What of an Event queue counts: indices modulo twice the size, overflow flags, and records without UNKNOWN bits. */
function eventQueueCounts(value: Observation, s: Extract<Step, { op: 'evq' }>): string {
  if (typeof value === 'string') return value;
  const records = value.records.map(recordCounts);
  if (s.first === true) return JSON.stringify([value.records.length > 0, records[0] ?? '']);
  const index = 2 ** (s.log2 + 1) - 1;
  const prod = (Number(value.prod) & (index | EVENTQ_PROD.bit('OVFLG'))) >>> 0;
  const cons = (Number(value.cons) & (index | EVENTQ_CONS.bit('OVACKFLG'))) >>> 0;
  return JSON.stringify([prod, cons, records]);
}

/** The bits of the last 64-bit word under IPA[55:12] and FetchAddr[55:3], which 7.3 leaves open. */
const UNDER_ADDRESS = 0xfff;

/** A record's bits that count: what 7.3 defines. */
function recordCounts(record: string): string {
  const words = new Uint32Array(Uint8Array.from(Buffer.from(record, 'hex')).buffer);
  const counts = knownBits(words).map((known, i) => ((words[i] ?? 0) & known) >>> 0);
  if (!eventOf(words)?.names.includes('FetchAddr')) counts[6] = (counts[6] ?? 0) & ~UNDER_ADDRESS;
  else counts[6] = (counts[6] ?? 0) & ~7;
  return counts.join();
}
