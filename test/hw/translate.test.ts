import { expect, test } from 'vitest';
import { CMD_TLBI_NH_ALL, CMD_TLBI_NH_VAA, CMD_TLBI_S2_IPA, CMD_TLBI_S12_VMALL } from '../../spec/commands.ts';
import { ipaOf, Lab, RAM, RAM_SIZE } from './translation-lab.ts';

/** Stream 5, nested, VMID 7: tables and CD at intermediate addresses that differ from their places. */
function nested() {
  const lab = new Lab();
  const s2 = lab.pages();
  const s1 = lab.pages();
  for (let at = RAM; at < RAM + RAM_SIZE; at += 0x20_0000n) lab.map(2, s2, ipaOf(at), at, {}, { level: 2 });
  const cd = lab.cd({ TTB0: ipaOf(s1) >> 4n });
  lab.ste(5, { Config: 'NESTED', S1ContextPtr: ipaOf(cd) >> 6n, ...lab.s2(s2, 7) });
  const data = lab.pages();
  lab.map(2, s2, 0x8000_0000n, data);
  lab.map(1, s1, 0x1000n, 0x8000_0000n, {}, { ipaOf });
  return { lab, s1, s2, data, cd };
}

test('nested translation: every table and the CD lie at intermediate addresses [3.3.2]', () => {
  const { lab, data } = nested();
  expect(lab.go(5, 0x1234n)).toBe(`0x${(data + 0x234n).toString(16)}`);
  expect(lab.t.tlbHit).toBe(false);
  expect(lab.go(5, 0x1235n)).toBe(`0x${(data + 0x235n).toString(16)}`);
  expect(lab.t.tlbHit).toBe(true);
});

test('a combined entry survives TLBI_S2_IPA and goes with NH_VAA [4.4.3.1]', () => {
  const { lab, s2, data } = nested();
  lab.go(5, 0x1000n);
  const other = lab.pages();
  lab.map(2, s2, 0x8000_0000n, other);
  lab.tlbi(CMD_TLBI_S2_IPA.opcode, { VMID: 7, address: 0x8000_0000n });
  expect(lab.go(5, 0x1000n)).toBe(`0x${data.toString(16)}`);
  lab.tlbi(CMD_TLBI_NH_VAA.opcode, { VMID: 7, address: 0x1000n });
  expect(lab.go(5, 0x1000n)).toBe(`0x${other.toString(16)}`);
});

test('S12_VMALL drops all of a VMID and nothing of another [4.4.3]', () => {
  const { lab, data } = nested();
  lab.go(5, 0x1000n);
  expect(lab.smmu.tlb.holdersOf(7).length).toBeGreaterThan(0);
  lab.tlbi(CMD_TLBI_S12_VMALL.opcode, { VMID: 8 });
  expect(lab.go(5, 0x1000n)).toBe(`0x${data.toString(16)}`);
  expect(lab.t.tlbHit).toBe(true);
  lab.tlbi(CMD_TLBI_S12_VMALL.opcode, { VMID: 7 });
  expect(lab.smmu.tlb.holdersOf(7)).toEqual([]);
  lab.go(5, 0x1000n);
  expect(lab.t.tlbHit).toBe(false);
  lab.tlbi(CMD_TLBI_NH_ALL.opcode, { VMID: 7 });
  lab.go(5, 0x1000n);
  expect(lab.t.tlbHit).toBe(false);
});

test('a changed STE takes effect with CFGI_STE and not before [3.21.3]', () => {
  const { lab, data } = nested();
  lab.go(5, 0x1000n);
  lab.ste(5, { Config: 'ABORT' });
  expect(lab.go(5, 0x1000n)).toBe(`0x${data.toString(16)}`);
  lab.smmu.configCache.invalidateSte(5, true);
  expect(lab.go(5, 0x1000n)).toBe('Abort event=0x0 unrecorded S2=0');
});

test('stage 1 faults show S2=0, stage 2 faults the intermediate address and CLASS [7.3.13]', () => {
  const { lab, s1, s2 } = nested();
  expect(lab.go(5, 0x5000n)).toBe('Abort event=0x10 S2=0');
  lab.map(1, s1, 0x6000n, 0x9000_0000n, {}, { ipaOf });
  expect(lab.go(5, 0x6010n)).toBe('Abort event=0x10 S2=1 ipa=0x90000010 class=2');
  // A table at an address that stage 2 does not map.
  const lost = 1n << 43n;
  lab.map(1, s1, 0x80_0000_0000n, 0n, {}, { ipaOf });
  lab.memory.write64(s1 + 8n, lost | 3n);
  lab.tlbi(CMD_TLBI_NH_ALL.opcode, { VMID: 7 });
  expect(lab.go(5, 0x80_0000_0000n)).toBe(`Abort event=0x10 S2=1 ipa=0x${lost.toString(16)} class=1`);
  void s2;
});
