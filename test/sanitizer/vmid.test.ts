import { describe, expect, test } from 'vitest';
import * as commands from '../../spec/commands.ts';
import { abort, nested, S2ROOT, SanitizerLab, s2 } from './lab.ts';

const ROOT2 = S2ROOT + 0x1_0000n;

/** A VMID owned and in use by stream 0x10. */
function installed(VMID = 3): SanitizerLab {
  const lab = new SanitizerLab().boot();
  lab.vmid('alloc', VMID);
  lab.install(0x10, s2(VMID));
  return lab;
}

describe('the right order of teardown finds nothing', () => {
  test('STE, CFGI, SYNC, S12_VMALL, SYNC, free, and the next owner [lifecycle 4]', () => {
    const lab = installed();
    expect(lab.sanitizer.vmidState('smmu0', 3)).toBe('INSTALLED');
    lab.remove(0x10);
    expect(lab.sanitizer.vmidState('smmu0', 3)).toBe('DRAINING-TLB');
    lab.vmall(3);
    expect(lab.sanitizer.vmidState('smmu0', 3)).toBe('CLEAN');
    lab.vmid('free', 3);
    expect(lab.sanitizer.vmidState('smmu0', 3)).toBe('FREE');
    lab.vmid('alloc', 3, 'other');
    lab.install(0x11, s2(3, ROOT2));
    expect(lab.rules).toEqual([]);
  });

  test('two streams of one VMID, the VMID invalidated after the last', () => {
    const lab = installed();
    lab.install(0x11, nested(3));
    lab.remove(0x10);
    lab.remove(0x11);
    lab.vmall(3);
    lab.vmid('free', 3);
    expect(lab.rules).toEqual([]);
  });

  test('installed again by the same owner without a TLBI, stage 2 unchanged', () => {
    const lab = installed();
    lab.remove(0x10);
    lab.install(0x11, s2(3));
    expect(lab.rules).toEqual([]);
  });
});

test('states: DRAINING-CFG between the store and the completed CFGI [lifecycle 3]', () => {
  const lab = installed();
  lab.storeWords(lab.ste(0x10), abort(), [0]);
  expect(lab.sanitizer.vmidState('smmu0', 3)).toBe('DRAINING-CFG');
  expect(lab.sanitizer.vmidUsers('smmu0', 3)).toEqual([0x10]);
  lab.raw(commands.CMD_CFGI_STE.encode({ StreamID: 0x10, Leaf: 1 }));
  expect(lab.sanitizer.vmidState('smmu0', 3)).toBe('DRAINING-CFG');
  lab.commands();
  expect(lab.sanitizer.vmidState('smmu0', 3)).toBe('DRAINING-TLB');
});

describe('VMID-1: freed or given out while an STE names it', () => {
  test('in memory', () => {
    const lab = installed();
    lab.vmid('free', 3);
    expect(lab.rules).toEqual(['VMID-1']);
  });

  test('in a cache: the CFGI was not waited for', () => {
    const lab = installed();
    lab.storeWords(lab.ste(0x10), abort(), [0]);
    lab.raw(commands.CMD_CFGI_STE.encode({ StreamID: 0x10, Leaf: 1 }));
    lab.vmid('free', 3);
    expect(lab.rules).toEqual(['VMID-1']);
  });

  test('given out by an allocator that does not know of the STE', () => {
    const lab = new SanitizerLab().boot();
    lab.install(0x10, s2(3));
    lab.vmid('alloc', 3);
    expect(lab.rules).toEqual(['VMID-1']);
  });

  test('the message names the STE, the history what led there', () => {
    const lab = installed();
    lab.vmid('free', 3);
    const [finding] = lab.sanitizer.report().findings;
    expect(finding?.message).toBe('smmu0: VMID 3 freed by vm while STE 0x10 may still name it');
    expect(finding?.subject).toEqual({ smmu: 'smmu0', VMID: 3, StreamID: 0x10 });
    const history = finding?.history.map((line) => line.replace(/^\d+: /, '')) ?? [];
    expect(history.at(-1)).toBe('VMID 3 freed by vm');
    expect(history).toContain('smmu0 cmdq: CMD_CFGI_STE StreamID=0x10 Leaf=0x1');
    expect(history.some((line) => line.startsWith('store 0x40400410 = 0x'))).toBe(true);
    expect(history).toContain('VMID 3 allocated to vm');
  });
});

describe('VMID-2: TLB entries left', () => {
  test('freed without a TLBI', () => {
    const lab = installed();
    lab.remove(0x10);
    lab.vmid('free', 3);
    expect(lab.rules).toEqual(['VMID-2']);
  });

  test('given out although entries are left', () => {
    const lab = new SanitizerLab().boot();
    lab.install(0x10, s2(3));
    lab.remove(0x10);
    lab.vmid('alloc', 3);
    expect(lab.rules).toEqual(['VMID-2']);
  });

  test('installed with another stage 2, without announcements', () => {
    const lab = new SanitizerLab().boot();
    lab.install(0x10, s2(3));
    lab.remove(0x10);
    lab.install(0x10, s2(3, ROOT2));
    expect(lab.rules).toEqual(['VMID-2']);
  });

  test('a TLBI of another VMID does not count', () => {
    const lab = installed();
    lab.remove(0x10);
    lab.vmall(4);
    lab.vmid('free', 3);
    expect(lab.rules).toEqual(['VMID-2']);
  });
});

describe('VMID-3: the TLBI came too early', () => {
  test('TLBI, STE, CFGI, free', () => {
    const lab = installed();
    lab.vmall(3);
    lab.remove(0x10);
    lab.vmid('free', 3);
    expect(lab.rules).toEqual(['VMID-3']);
  });

  const oneSync = (ordering: 'strict' | 'lenient'): string[] => {
    const lab = new SanitizerLab({ ordering }).boot();
    lab.vmid('alloc', 3);
    lab.install(0x10, s2(3));
    lab.storeWords(lab.ste(0x10), abort(), [0]);
    lab.commands(
      commands.CMD_CFGI_STE.encode({ StreamID: 0x10, Leaf: 1 }),
      commands.CMD_TLBI_S12_VMALL.encode({ VMID: 3 }),
    );
    lab.vmid('free', 3);
    return lab.rules;
  };

  test('CFGI and TLBI under one CMD_SYNC: strict demands completion of the CFGI, lenient its order', () => {
    expect(oneSync('strict')).toEqual(['VMID-3']);
    expect(oneSync('lenient')).toEqual([]);
  });
});

describe('VMID-4: half of the entries', () => {
  test('NH_ALL for a nested stream', () => {
    const lab = installed();
    lab.install(0x11, nested(3));
    lab.remove(0x10);
    lab.remove(0x11);
    lab.commands(commands.CMD_TLBI_NH_ALL.encode({ VMID: 3 }));
    lab.vmid('free', 3);
    expect(lab.rules).toEqual(['VMID-4']);
  });

  test('S2_IPA of one page', () => {
    const lab = installed();
    lab.remove(0x10);
    lab.commands(commands.CMD_TLBI_S2_IPA.encode({ VMID: 3, Address: 1 }));
    lab.vmid('free', 3);
    expect(lab.rules).toEqual(['VMID-4']);
  });
});

test('VMID-5: two owners at once', () => {
  const lab = new SanitizerLab().boot();
  lab.vmid('alloc', 3, 'S2');
  lab.vmid('alloc', 3, 'vIOMMU');
  expect(lab.rules).toEqual(['VMID-5']);
});

test('VMID-7: the owner moved on, the STE did not', () => {
  const lab = installed();
  lab.vmid('alloc', 4);
  lab.vmid('free', 3);
  expect(lab.rules).toEqual(['VMID-7']);
});

describe('VMID-9: too wide', () => {
  test('given out', () => {
    const lab = new SanitizerLab().boot();
    lab.vmid('alloc', 0x1_0000);
    expect(lab.rules).toEqual(['VMID-9']);
  });
});

test('VMID-10: VMID 0 given out', () => {
  const lab = new SanitizerLab().boot();
  lab.vmid('alloc', 0);
  expect(lab.rules).toEqual(['VMID-10']);
});

test('VMID-13: SMMUEN=0 is no invalidation', () => {
  const lab = installed();
  lab.remove(0x10);
  lab.disable();
  lab.vmid('free', 3);
  expect(lab.rules).toEqual(['VMID-13']);
});

describe('VMID-14: commands under way', () => {
  test('a TLBI without CMD_SYNC', () => {
    const lab = installed();
    lab.remove(0x10);
    lab.raw(commands.CMD_TLBI_S12_VMALL.encode({ VMID: 3 }));
    lab.vmid('free', 3);
    expect(lab.rules).toEqual(['VMID-14']);
  });

  test('a TLBI that the queue has not consumed', () => {
    const lab = new SanitizerLab({}, undefined, { schedule: { mode: 'stepped' } });
    lab.boot();
    lab.vmid('alloc', 3);
    lab.raw(commands.CMD_TLBI_S12_VMALL.encode({ VMID: 3 }));
    lab.vmid('free', 3);
    expect(lab.rules).toEqual(['VMID-14']);
  });
});

describe('VMID-17: a free that is none', () => {
  test('twice', () => {
    const lab = new SanitizerLab().boot();
    lab.vmid('alloc', 3);
    lab.vmid('free', 3);
    lab.vmid('free', 3);
    expect(lab.rules).toEqual(['VMID-17']);
  });

  test("somebody else's", () => {
    const lab = new SanitizerLab().boot();
    lab.vmid('alloc', 3, 'vIOMMU');
    lab.vmid('free', 3, 'S2');
    expect(lab.rules).toEqual(['VMID-17']);
  });
});

test('VMID-18: an STE with a number that was given back', () => {
  const lab = installed();
  lab.remove(0x10);
  lab.vmall(3);
  lab.vmid('free', 3);
  lab.install(0x10, s2(3));
  expect(lab.rules).toEqual(['VMID-18']);
});

test('a command that stopped the queue completes nothing', () => {
  const lab = installed();
  lab.remove(0x10);
  // The TLBI is consumed, the CMD_SYNC has an ILLEGAL signal.
  lab.raw(commands.CMD_TLBI_S12_VMALL.encode({ VMID: 3 }), commands.CMD_SYNC.encode({ CS: 3 }));
  lab.vmid('free', 3);
  expect(lab.rules).toEqual(['VMID-14']);
});

test('without announcements the rules about owners are listed as undecided', () => {
  const lab = new SanitizerLab().boot();
  const undecided = lab.sanitizer.report().undecided.map(({ rule }) => rule);
  expect(undecided).toContain('VMID-1');
  expect(undecided).toContain('VMID-12');
  lab.vmid('alloc', 3);
  expect(lab.sanitizer.report().undecided.map(({ rule }) => rule)).not.toContain('VMID-1');
});
