/** A stream with stage 2 only, for tests: 39-bit IPAs, 4 KB granule, one level 3 table at 0x4000_6000. */

import type { Encoding } from '../../spec/layout.ts';
import { toQwords } from '../../spec/layout.ts';
import * as spec from '../../spec/registers.ts';
import { STE } from '../../spec/ste.ts';
import type { Regs } from './harness.ts';

export const STRTAB = 0x4040_0000n;
const LEVEL1 = 0x4000_4000n;
const LEVEL2 = 0x4000_5000n;
export const LEVEL3 = 0x4000_6000n;

/** Descriptor bits of VMSAv8-64 stage 2 as the Arm ARM prints them. */
const TABLE = 3n;
export const PAGE_RW = 0x3n | (0xfn << 2n) | (3n << 6n) | (3n << 8n) | (1n << 10n);
export const PAGE_RO = 0x3n | (0xfn << 2n) | (1n << 6n) | (3n << 8n) | (1n << 10n);

/** Writes an STE into the linear table. */
export function writeSte(r: Regs, sid: number, values: Encoding<typeof STE.fields>): void {
  for (const [i, qword] of toQwords(STE.encode(values)).entries())
    r.machine.memory.write64(STRTAB + BigInt(sid * 64 + i * 8), qword);
}

export const stage2Ste = (VMID: number, more: Encoding<typeof STE.fields> = {}): Encoding<typeof STE.fields> => ({
  V: 1,
  Config: 'S2_TRANS',
  S2VMID: VMID,
  S2T0SZ: 25,
  S2SL0: 1,
  S2PS: 5,
  S2AA64: 1,
  S2R: 1,
  S2TTB: LEVEL1 >> 4n,
  ...more,
});

/** Stream table of 2^log2 entries, empty stage 2 tables, SMMUEN. */
export function turnOn(r: Regs, log2 = 8): void {
  r.write64(spec.STRTAB_BASE, STRTAB);
  r.write(spec.STRTAB_BASE_CFG, log2);
  r.write(spec.CR2, spec.CR2.bit('RECINVSID'));
  r.machine.memory.write64(LEVEL1, LEVEL2 | TABLE);
  r.machine.memory.write64(LEVEL2, LEVEL3 | TABLE);
  r.write(spec.CR0, spec.CR0.bit('SMMUEN', 'CMDQEN', 'EVENTQEN'));
}

/** Maps page `n` of the IPA space; `descriptor` 0 unmaps it. */
export function mapPage(r: Regs, n: number, descriptor: bigint): void {
  r.machine.memory.write64(LEVEL3 + BigInt(8 * n), descriptor);
}
