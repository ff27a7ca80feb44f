import { describe, expect, test } from 'vitest';
import { FAULT, GuestStage1, type Stage1 } from '../../src/testing/guest-stage1.ts';
import type { GuestCommand } from '../../src/testing/operations/guest-command.ts';

const AT: Stage1 = { vm: 0, scope: 'v0@smmu0', vste: 'translate', options: {} };

/** Space 0 (CD 0, ASID 1) maps pages to themselves, space 1 (CD 1, ASID 2) in reverse: page 8 to 15. */
function attached(options: Stage1['options'] = {}): GuestStage1 {
  const stage1 = new GuestStage1(2);
  stage1.attach('d0', { ...AT, options });
  return stage1;
}

const send = (stage1: GuestStage1, ...commands: readonly GuestCommand[]): void =>
  stage1.invalidated('v0@smmu0', commands, (vsid) => (vsid === 3 ? 'd0' : undefined), true);

const answers = (stage1: GuestStage1, page = 8, ssid?: number, ats = false): number[] =>
  [...(stage1.answers('d0', ssid, page, ats) ?? [])].sort((a, b) => a - b);

describe('a translation may be the old one until it is invalidated [3.21.1, 4.4.2]', () => {
  const changed = (): GuestStage1 => {
    const stage1 = attached();
    stage1.setLeaf(0, 0, 8, 10);
    return stage1;
  };
  test('by address, ASID or everything; not by another', () => {
    expect(answers(changed())).toEqual([8, 10]);
    const kept: GuestCommand[][] = [
      [{ command: 'NH_VA', asid: 2, page: 8 }],
      [{ command: 'NH_VA', asid: 1, page: 9 }],
      [{ command: 'NH_ASID', asid: 2 }],
      [{ command: 'CFGI_CD', vsid: 3 }],
    ];
    for (const commands of kept) {
      const stage1 = changed();
      send(stage1, ...commands);
      expect(answers(stage1), JSON.stringify(commands)).toEqual([8, 10]);
    }
    const gone: GuestCommand[][] = [
      [{ command: 'NH_VA', asid: 1, page: 8, leaf: true }],
      [{ command: 'NH_VA', asid: 1, page: 6, pages: 3 }],
      [{ command: 'NH_VAA', page: 8 }],
      [{ command: 'NH_ASID', asid: 1 }],
      [{ command: 'NH_ALL' }],
      [{ command: 'NSNH_ALL' }],
    ];
    for (const commands of gone) {
      const stage1 = changed();
      send(stage1, ...commands);
      expect(answers(stage1), JSON.stringify(commands)).toEqual([10]);
    }
  });

  test('a fault is not cached: what becomes mapped works at once', () => {
    const stage1 = changed();
    send(stage1, { command: 'NH_ALL' });
    stage1.setLeaf(0, 0, 8, null);
    expect(answers(stage1)).toEqual([FAULT, 10]);
    send(stage1, { command: 'NH_ALL' });
    stage1.setLeaf(0, 0, 8, 11);
    expect(answers(stage1)).toEqual([11]);
  });

  test('without ranges (IDR3.RIL=0) a command covers its first page alone [4.4.1.1]', () => {
    const stage1 = changed();
    stage1.invalidated('v0@smmu0', [{ command: 'NH_VA', asid: 1, page: 6, pages: 3 }], () => undefined, false);
    expect(answers(stage1)).toEqual([8, 10]);
  });

  test('under another VMID nothing is removed', () => {
    const stage1 = changed();
    stage1.invalidated('v1@smmu0', [{ command: 'NH_ALL' }], () => 'd0', true);
    expect(answers(stage1)).toEqual([8, 10]);
  });
});

describe('a cached pointer to the next table outlives Leaf=1 [4.4.1]', () => {
  test.each([1, 2])('of level %i', (level) => {
    const stage1 = attached();
    stage1.setPointer(0, 0, level, 1);
    expect(answers(stage1)).toEqual([8, 15]);
    send(stage1, { command: 'NH_VA', asid: 1, page: 8, leaf: true });
    expect(answers(stage1)).toEqual([8, 15]);
    send(stage1, { command: 'NH_VA', asid: 1, page: 8 });
    expect(answers(stage1)).toEqual([15]);
  });

  test('one that leads outside faults; the translation made before may stay', () => {
    const stage1 = attached();
    stage1.setPointer(0, 0, 2, 'outside');
    expect(answers(stage1)).toEqual([FAULT, 8]);
    send(stage1, { command: 'NH_ALL' });
    expect(answers(stage1)).toEqual([FAULT]);
  });

  test('one that leads outside is a valid descriptor, and may be cached as such; one that is not valid is not', () => {
    const stage1 = attached();
    stage1.setPointer(0, 0, 1, 'outside');
    send(stage1, { command: 'NH_ALL' });
    stage1.setPointer(0, 0, 1, 0);
    expect(answers(stage1)).toEqual([FAULT, 8]);
    stage1.setPointer(0, 0, 1, null);
    send(stage1, { command: 'NH_ALL' });
    stage1.setPointer(0, 0, 1, 0);
    expect(answers(stage1)).toEqual([8]);
  });
});

describe('a cached CD stays until CFGI_CD of its stream and SubstreamID, valid or not [3.21.3, 4.3.3]', () => {
  test('the new one has another ASID: its translations are clean', () => {
    const stage1 = attached();
    stage1.setCd(0, 0, { space: 1 });
    expect(answers(stage1)).toEqual([8, 15]);
    send(stage1, { command: 'CFGI_CD', vsid: 4 });
    expect(answers(stage1)).toEqual([8, 15]);
    send(stage1, { command: 'CFGI_CD', vsid: 3 });
    expect(answers(stage1)).toEqual([15]);
  });

  test('the new one has the same ASID: translations of the old one stay until a TLBI', () => {
    const stage1 = attached();
    stage1.setCd(0, 0, { space: 1, asid: 1 });
    send(stage1, { command: 'CFGI_CD_ALL', vsid: 3 });
    expect(answers(stage1)).toEqual([8, 15]);
    send(stage1, { command: 'NH_ASID', asid: 1 });
    expect(answers(stage1)).toEqual([15]);
  });

  test('a TLBI before the CFGI_CD, or beside it, is too early: the old CD may translate once more', () => {
    const stage1 = attached();
    stage1.setCd(0, 0, { space: 1, asid: 1 });
    send(stage1, { command: 'NH_ALL' }, { command: 'CFGI_CD', vsid: 3 });
    expect(answers(stage1)).toEqual([8, 15]);
  });

  test('another SubstreamID', () => {
    const stage1 = attached({ ssids: 1, dss: 'SSID0' });
    stage1.setCd(0, 1, { space: null });
    expect(answers(stage1, 8, 1)).toEqual([FAULT, 15]);
    send(stage1, { command: 'CFGI_CD', vsid: 3, ssid: 0 });
    expect(answers(stage1, 8, 1)).toEqual([FAULT, 15]);
    send(stage1, { command: 'CFGI_CD', vsid: 3, ssid: 1 });
    expect(answers(stage1, 8, 1)).toEqual([FAULT]);
  });
});

describe('S1DSS and S1CDMax choose the CD [5.2 S1DSS, 7.3.7]', () => {
  const cases: readonly (readonly [Stage1['options'], number | undefined, number])[] = [
    [{}, undefined, 8],
    [{}, 0, FAULT],
    [{ cd: 1 }, undefined, 15],
    [{ ssids: 1 }, undefined, FAULT],
    [{ ssids: 1, dss: 'BYPASS' }, undefined, 8],
    [{ ssids: 1, dss: 'SSID0' }, undefined, 8],
    [{ ssids: 1, dss: 'SSID0' }, 0, FAULT],
    [{ ssids: 1 }, 0, 8],
    [{ ssids: 1 }, 1, 15],
    [{ ssids: 1 }, 2, FAULT],
    [{ ssids: 2 }, 2, FAULT],
    [{ ssids: 1, cd: 1 }, 0, 8],
  ];
  test.each(cases)('%j with SubstreamID %j', (options, ssid, to) => {
    expect(answers(attached(options), 8, ssid)).toEqual([to]);
  });
});

describe("a device's ATC keeps what it asked for until CMD_ATC_INV of its stream [3.9.1, 4.5.1]", () => {
  const asked = (): GuestStage1 => {
    const stage1 = attached();
    stage1.asked('d0', undefined, 8);
    stage1.setLeaf(0, 0, 8, 10);
    send(stage1, { command: 'NH_ALL' });
    return stage1;
  };
  test('a TLBI does not reach it', () => {
    expect(answers(asked(), 8, undefined, true)).toEqual([8, 10]);
    expect(answers(asked(), 8)).toEqual([10]);
  });

  test('by page, by everything, by moving', () => {
    for (const command of [{ page: 8 }, { page: 7, pages: 2 }, {}]) {
      const stage1 = asked();
      send(stage1, { command: 'ATC_INV', vsid: 3, ...command });
      expect(answers(stage1, 8, undefined, true)).toEqual([10]);
    }
    const other = asked();
    send(other, { command: 'ATC_INV', vsid: 3, page: 9 });
    expect(answers(other, 8, undefined, true)).toEqual([8, 10]);
    const moved = asked();
    moved.attach('d0', AT);
    expect(answers(moved, 8, undefined, true)).toEqual([10]);
  });
});
