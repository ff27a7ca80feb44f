import { describe, expect, test } from 'vitest';
import * as commands from '../../spec/commands.ts';
import type { Words } from '../../spec/layout.ts';
import * as spec from '../../spec/registers.ts';
import { STE } from '../../spec/ste.ts';
import { BASE, Regs } from '../hw/harness.ts';
import { DATA, LAB_CONFIG, page2, S2ROOT, SanitizerLab, s2 } from './lab.ts';

const BASE1 = BASE + 0x2_0000n;
const CMDQ1 = 0x4018_0000n;
const STRTAB1 = 0x4041_0000n;
const IPA = 0x20_3000n;

/** A second SMMU with a queue and a Stream table of its own. */
class TwoSmmus extends SanitizerLab {
  readonly other: Regs;
  #prod = 0;

  constructor() {
    super({}, LAB_CONFIG, {
      smmus: [
        { config: LAB_CONFIG, base: BASE },
        { config: LAB_CONFIG, base: BASE1 },
      ],
      endpoints: [],
    });
    this.boot();
    this.other = new Regs(this.machine, BASE1);
    this.fillAbort(STRTAB1, 256);
    this.other.write64(spec.CMDQ_BASE, CMDQ1 | 8n);
    this.other.write(spec.CR0, spec.CR0.bit('CMDQEN'));
    this.other.write64(spec.STRTAB_BASE, STRTAB1);
    this.other.write(spec.STRTAB_BASE_CFG, spec.STRTAB_BASE_CFG.value({ LOG2SIZE: 8 }));
    this.send(commands.encodeCommand('CMD_CFGI_ALL'));
    this.send(commands.CMD_TLBI_EL2_ALL.encode());
    this.send(commands.CMD_TLBI_NSNH_ALL.encode());
    this.other.write(spec.CR0, spec.CR0.bit('CMDQEN', 'SMMUEN'));
  }

  /** Commands and a CMD_SYNC on the second SMMU. */
  send(...list: readonly Words[]): void {
    for (const words of [...list, commands.CMD_SYNC.encode()]) {
      this.store(CMDQ1 + BigInt(16 * (this.#prod & 0xff)), words);
      this.#prod = (this.#prod + 1) & 0x1ff;
    }
    this.other.write(spec.CMDQ_PROD, this.#prod);
  }

  /** Puts an STE in place on the second SMMU. */
  installOther(sid: number, words: Words): void {
    const at = STRTAB1 + BigInt(sid * STE.bytes);
    this.storeWords(at, words, [1, 2, 3, 4, 5, 6, 7]);
    this.send(commands.CMD_CFGI_STE.encode({ StreamID: sid, Leaf: 1 }));
    this.storeWords(at, words, [0]);
    this.send(commands.CMD_CFGI_STE.encode({ StreamID: sid, Leaf: 1 }));
  }
}

describe('the VMIDs of two SMMUs have nothing to do with each other [3.17]', () => {
  test('VMID-15: invalidated on the wrong one', () => {
    const lab = new TwoSmmus();
    lab.vmid('alloc', 3);
    lab.install(0x10, s2(3));
    lab.remove(0x10);
    lab.send(commands.CMD_TLBI_S12_VMALL.encode({ VMID: 3 }));
    lab.vmid('free', 3);
    expect(lab.rules).toEqual(['VMID-15']);
  });

  test('one number in use on both, by different owners', () => {
    const lab = new TwoSmmus();
    lab.vmid('alloc', 3, 'a');
    lab.vmid('alloc', 3, 'b', 'smmu1');
    lab.install(0x10, s2(3));
    lab.installOther(0x10, s2(3, S2ROOT + 0x1_0000n));
    lab.remove(0x10);
    lab.vmall(3);
    lab.vmid('free', 3, 'a');
    expect(lab.rules).toEqual([]);
    expect(lab.sanitizer.vmidState('smmu1', 3)).toBe('INSTALLED');
  });
});

describe('TLB-15: one table on two SMMUs', () => {
  const unmap = (both: boolean): string[] => {
    const lab = new TwoSmmus();
    lab.map(S2ROOT, IPA, page2(DATA));
    lab.install(0x10, s2(3));
    lab.installOther(0x20, s2(4));
    lab.put(S2ROOT, 3, IPA, 0n);
    lab.commands(commands.CMD_TLBI_S2_IPA.encode({ VMID: 3, Address: IPA >> 12n, Leaf: 1 }));
    if (both) lab.send(commands.CMD_TLBI_S2_IPA.encode({ VMID: 4, Address: IPA >> 12n, Leaf: 1 }));
    lab.freePage(DATA);
    return lab.rules;
  };

  test('invalidated on one', () => {
    expect(unmap(false)).toEqual(['TLB-15']);
  });

  test('invalidated on both', () => {
    expect(unmap(true)).toEqual([]);
  });
});

test('VMID-11: CR0.VMW puts two owners into one group [3.17.6]', () => {
  const lab = new SanitizerLab().boot();
  lab.vmid('alloc', 2, 'a');
  lab.vmid('alloc', 3, 'b');
  expect(lab.rules).toEqual([]);
  lab.enable(spec.CR0.value({ VMW: 'IGNORE_1' }));
  expect(lab.rules).toEqual(['VMID-11']);
});

test("memory that shows a caller's buffer announces no stores: it is compared at register accesses", () => {
  const backing = new ArrayBuffer(0x100_0000);
  const ram = 0x4000_0000n;
  const lab = new SanitizerLab({}, LAB_CONFIG, { ram: [{ base: ram, size: 0x100_0000n, backing }] });
  lab.boot();
  lab.vmid('alloc', 3);
  const at = Number(lab.ste(0x10) - ram);
  const view = new Uint32Array(backing, at, STE.bytes / 4);
  view.set(s2(3));
  lab.cfgiSte(0x10);
  // Stores behind memory's back have no order: all words changed at once.
  expect(lab.sanitizer.vmidState('smmu0', 3)).toBe('INSTALLED');
  lab.vmid('free', 3);
  expect(lab.rules).toContain('VMID-1');
});
