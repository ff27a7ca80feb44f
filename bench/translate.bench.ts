/**
 * What a translation costs beside the memory reads it cannot avoid. Run it on the built package:
 * `node dist/bench/translate.bench.js`, or with a TypeScript loader on this file.
 *
 * Floor: 24 dependent 64-bit reads (as many as a nested walk of 4 by 4 levels makes) over 16 MiB of filled pages, each
 * address computed from the value read before, no checks, through the fastest read that `Memory` has.
 */
import { capsOf } from '../spec/caps.ts';
import { CD } from '../spec/cd.ts';
import { pte1, pte2 } from '../spec/descriptors.ts';
import { IDR0, IDR1, IDR3, IDR5 } from '../spec/id-registers.ts';
import type { Words } from '../spec/layout.ts';
import { STE } from '../spec/ste.ts';
import { Memory } from '../src/hw/memory.ts';
import { NO_TLB } from '../src/hw/tlb.ts';
import { Outcome, Transaction, type TranslationRegs } from '../src/hw/transaction.ts';
import { Translator } from '../src/hw/translate.ts';

const RAM = 0x4000_0000;
const READS = 24;
const FILLED = 16 << 20;
/** Pages that the translated addresses spread over. */
const PAGES = 64;

const memory = new Memory();
memory.addRegion(BigInt(RAM), 0x4000_0000n);

function fill(): void {
  let x = 12345;
  for (let at = 0; at < FILLED; at += 8) {
    x = (Math.imul(x, 1_664_525) + 1_013_904_223) | 0;
    memory.store64(0, RAM + at, 0, RAM + ((x >>> 8) & (FILLED - 8)));
  }
}

let next = RAM + FILLED;
const page = (): number => {
  next += 0x1000;
  return next - 0x1000;
};
const put = (at: number, words: Words): void => {
  for (let i = 0; i < words.length; i += 2) memory.store64(0, at + i * 4, words[i + 1] ?? 0, words[i] ?? 0);
};

/** Maps a 4 KiB page through four levels; `ipa` false: tables are read at their physical addresses. */
function map(stage: 1 | 2, root: number, va: number, pa: number): void {
  const pte = stage === 1 ? pte1 : pte2;
  let table = root;
  for (let level = 0; level < 3; level++) {
    const at = table + (Math.floor(va / 2 ** (39 - 9 * level)) % 512) * 8;
    memory.load64(0, at);
    if (memory.lo === 0) {
      table = page();
      const words = pte('4k', level as 0, 'table').encode({ Valid: 1, Type: 1, NextLevelTableAddress: table >>> 12 });
      put(at, words);
    } else table = memory.lo & ~0xfff;
  }
  const leaf = stage === 1 ? { AF: 1, AP: 1, nG: 1 } : { AF: 1, S2AP: 3, MemAttr: 15 };
  const at = table + (Math.floor(va / 4096) % 512) * 8;
  put(at, pte('4k', 3, 'page').encode({ Valid: 1, Type: 1, ...leaf, OutputAddress: pa >>> 12 }));
}

const regs: TranslationRegs = {
  SMMUEN: true,
  ATSCHK: false,
  VMW: 0,
  E2H: false,
  RECINVSID: false,
  REC_CFG_ATS: false,
  PTM: false,
  GBPA: 0,
  CR1: 0,
  GBPMPAM: 0,
  strtabHi: 0,
  strtabLo: RAM + FILLED,
  twoLevel: false,
  SPLIT: 8,
  LOG2SIZE: 4,
};

const caps = capsOf({
  IDR0: IDR0.value({ S1P: 1, S2P: 1, TTF: 2, VMID16: 1, ASID16: 1 }),
  IDR1: IDR1.value({ SIDSIZE: 16 }),
  IDR3: IDR3.value({ XNX: 1, HAD: 1 }),
  IDR5: IDR5.value({ GRAN4K: 1, OAS: 5 }),
});

const VA = 0x1234_5678_9000;
const VA_HI = Math.floor(VA / 2 ** 32);
const VA_LO = VA | 0;

function build(): void {
  const strtab = page();
  const s1 = page();
  const s2 = page();
  const cd = page();
  put(
    strtab,
    STE.encode({
      V: 1,
      Config: 'NESTED',
      S1ContextPtr: cd >>> 6,
      SHCFG: 'INCOMING',
      S2VMID: 1,
      S2T0SZ: 16,
      S2SL0: 2,
      S2PS: 5,
      S2AA64: 1,
      S2R: 1,
      S2TTB: s2 >>> 4,
    }),
  );
  put(cd, CD.encode({ V: 1, AA64: 1, A: 1, R: 1, T0SZ: 16, EPD1: 1, IPS: 5, ASID: 1, TTB0: s1 >>> 4, MAIR0: 0xff }));
  const first = next;
  for (let i = 0; i < PAGES; i++) map(1, s1, VA + i * 4096, RAM + i * 4096);
  // Stage 2 maps tables and data to themselves, page by page.
  for (let i = 0; i < PAGES; i++) map(2, s2, RAM + i * 4096, RAM + i * 4096);
  for (const at of [s1, cd, ...Array.from({ length: (next - first) / 4096 }, (_, i) => first + i * 4096)])
    map(2, s2, at, at);
}

function floor(n: number): number {
  let hi = 0;
  let lo = RAM;
  for (let k = 0; k < n; k++)
    for (let i = 0; i < READS; i++) {
      memory.load64(hi, lo);
      hi = memory.hi;
      lo = memory.lo;
    }
  return lo;
}

function translations(smmu: Translator, t: Transaction, n: number): number {
  let sum = 0;
  for (let k = 0; k < n; k++) {
    t.addrHi = VA_HI;
    t.addrLo = VA_LO + ((k & (PAGES - 1)) << 12);
    smmu.translate(t);
    sum = (sum + t.paLo) | 0;
  }
  return sum;
}

/** Best of many short rounds, in nanoseconds for one: another process on the machine spoils some of them, not all. */
function best(run: (n: number) => number, n: number): number {
  for (let warm = 0; warm < 20; warm++) run(n);
  let least = Number.POSITIVE_INFINITY;
  for (let round = 0; round < 150; round++) {
    const start = process.hrtime.bigint();
    run(n);
    least = Math.min(least, Number(process.hrtime.bigint() - start) / n);
  }
  return least;
}

fill();
build();
const t = new Transaction();
const cold = new Translator(memory, caps, regs, { tlb: NO_TLB });
const warm = new Translator(memory, caps, regs);
cold.translate(Object.assign(t, { addrHi: Math.floor(VA / 2 ** 32), addrLo: VA | 0 }));
if (t.outcome !== Outcome.Ok || t.stepCount < READS) throw new Error(`the walk ended with event ${t.event}`);

const floorNs = best(floor, 2_000);
const missNs = best((n) => translations(cold, t, n), 2_000);
const hitNs = best((n) => translations(warm, t, n), 10_000);
const row = (name: string, ns: number, bar: string) =>
  console.log(
    `${name.padEnd(44)} ${ns.toFixed(1).padStart(8)} ns ${(ns / floorNs).toFixed(2).padStart(7)} x floor   ${bar}`,
  );
row('floor: 24 dependent reads of 16 MiB', floorNs, '');
row('nested walk, 4 by 4 levels, TLB off', missNs, 'bar 3.00');
row('TLB hit', hitNs, 'bar 0.31');
