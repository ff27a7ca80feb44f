import { describe, expect, test } from 'vitest';
import * as commands from '../../spec/commands.ts';
import { STE } from '../../spec/ste.ts';
import { abort, CDTAB, cd, LAB_CONFIG, S1ROOT, SanitizerLab, s1 } from './lab.ts';

const nhAsid = (ASID: number) => commands.CMD_TLBI_NH_ASID.encode({ ASID });

/** ASID 7 in the CD of stream 0x10. */
function installed(options: ConstructorParameters<typeof SanitizerLab>[0] = {}): SanitizerLab {
  const lab = new SanitizerLab(options).boot();
  lab.asid('alloc', 7);
  lab.store(lab.cdAt(0), cd(7));
  lab.install(0x10, s1());
  return lab;
}

function clearCd(lab: SanitizerLab): void {
  lab.storeWords(lab.cdAt(0), STE.zero(), [0]);
  lab.cfgiCd(0x10);
}

describe('the right orders find nothing', () => {
  test('CD, CFGI, NH_ASID, free', () => {
    const lab = installed();
    clearCd(lab);
    lab.commands(nhAsid(7));
    lab.asid('free', 7);
    expect(lab.rules).toEqual([]);
  });

  test('STE to abort, CFGI, NH_ASID, then the CD, as Linux does', () => {
    const lab = installed();
    lab.remove(0x10);
    lab.commands(nhAsid(7));
    lab.storeWords(lab.cdAt(0), STE.zero(), [0]);
    lab.asid('free', 7);
    lab.asid('alloc', 7, 'next');
    expect(lab.rules).toEqual([]);
  });
});

describe('ASID-1', () => {
  test('freed while the CD names it', () => {
    const lab = installed();
    lab.asid('free', 7);
    expect(lab.rules).toEqual(['ASID-1']);
  });

  test('freed while a cached CD may: no CFGI', () => {
    const lab = installed();
    lab.storeWords(lab.cdAt(0), STE.zero(), [0]);
    lab.asid('free', 7);
    expect(lab.rules).toEqual(['ASID-1']);
  });

  test('freed while a cached STE may lead to it', () => {
    const lab = installed();
    lab.storeWords(lab.ste(0x10), abort(), [0]);
    lab.asid('free', 7);
    expect(lab.rules).toEqual(['ASID-1']);
  });
});

test('ASID-2: freed without a TLBI', () => {
  const lab = installed();
  clearCd(lab);
  lab.asid('free', 7);
  expect(lab.rules).toEqual(['ASID-2']);
});

test('ASID-2: a TLBI of another ASID, or of another VMID, does not count', () => {
  for (const command of [nhAsid(8), commands.CMD_TLBI_NH_ASID.encode({ ASID: 7, VMID: 3 })]) {
    const lab = installed();
    clearCd(lab);
    lab.commands(command);
    lab.asid('free', 7);
    expect(lab.rules).toEqual(['ASID-2']);
  }
});

describe('ASID-3: the TLBI came too early', () => {
  test('TLBI, CD, CFGI, free', () => {
    const lab = installed();
    lab.commands(nhAsid(7));
    clearCd(lab);
    lab.asid('free', 7);
    expect(lab.rules).toEqual(['ASID-3']);
  });

  const oneSync = (ordering: 'strict' | 'lenient'): string[] => {
    const lab = installed({ ordering });
    lab.storeWords(lab.cdAt(0), STE.zero(), [0]);
    lab.commands(commands.CMD_CFGI_CD.encode({ StreamID: 0x10, Leaf: 1 }), nhAsid(7));
    lab.asid('free', 7);
    return lab.rules;
  };

  test('CFGI and TLBI under one CMD_SYNC, strict and lenient', () => {
    expect(oneSync('strict')).toEqual(['ASID-3']);
    expect(oneSync('lenient')).toEqual([]);
  });
});

test('ASID-4: one address only', () => {
  const lab = installed();
  clearCd(lab);
  lab.commands(commands.CMD_TLBI_NH_VA.encode({ ASID: 7, Address: 1 }));
  lab.asid('free', 7);
  expect(lab.rules).toEqual(['ASID-4']);
});

test('ASID-5: changed in place, the old one freed before the CFGI', () => {
  const lab = installed();
  lab.asid('alloc', 8);
  lab.storeWords(lab.cdAt(0), cd(8), [0]);
  lab.asid('free', 7);
  expect(lab.rules).toEqual(['ASID-5']);
});

test('ASID-7: an ASID too wide', () => {
  const config = { ...LAB_CONFIG, IDR0: { ...LAB_CONFIG.IDR0, ASID16: 'BITS_8' } } as const;
  const lab = new SanitizerLab({}, config).boot();
  lab.install(0x10, s1(CDTAB));
  lab.installCd(0x10, 0, cd(0x107, S1ROOT));
  expect(lab.rules).toEqual(['ASID-7']);
});
