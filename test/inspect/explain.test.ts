import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { LogExplainer } from '../../src/inspect/explain/explain.ts';
import { recorded } from './recorded.ts';

/** Findings of a log, and the log as it comes out. */
function explain(text: string) {
  const explainer = new LogExplainer();
  const out = explainer.push(text) + explainer.end();
  return { out, explainer, findings: explainer.findings };
}

const summaries = (text: string): string[] => explain(text).findings.map(({ summary }) => summary);

const DEVICE = 'arm-smmu-v3 arm-smmu-v3.3.auto: ';
const EVENT = [
  'event 0x10 received:',
  '\t0x0000002800000010',
  '\t0x0000020000000000',
  '\t0x0000000010000000',
  '\t0x0000000000000000',
];
const FAULT = 'F_TRANSLATION: StreamID 0x28: unprivileged write of 0x10000000 has no translation at stage 1; aborted';

describe('events of arm-smmu-v3', () => {
  test.each([
    ['dmesg', '[   10.712154] '],
    ['syslog', 'Nov 20 03:01:02 host kernel: '],
    ['journal', 'Nov 20 03:01:02 host kernel[1]: [   10.7] '],
    ['serial', '<3>[   10.712154] '],
    ['nothing', ''],
  ])('four words behind a prefix of %s', (_, prefix) => {
    expect(summaries(EVENT.map((line) => prefix + DEVICE + line).join('\n'))).toEqual([FAULT]);
  });

  test('two devices whose lines are interleaved, and other output between', () => {
    const other = 'arm-smmu-v3 arm-smmu-v3.1.auto: ';
    const bad = ['event 0x04 received:', '\t0x0000010800000004', ...Array(3).fill('\t0x0000000000000000')];
    const lines = EVENT.flatMap((line, i) => [
      DEVICE + line,
      'usb 1-1: new device at 0x0000000000000001',
      other + bad[i],
    ]);
    expect(summaries(lines.join('\n'))).toEqual([FAULT, 'C_BAD_STE: StreamID 0x108: STE invalid or ILLEGAL']);
  });

  test('a word that other output cut in two', () => {
    const lines = EVENT.map((line) => DEVICE + line);
    lines[2] = `${DEVICE}\t0x00000200[    3.0] serial: noise\n00000000`;
    expect(summaries(lines.join('\n'))).toEqual([FAULT]);
  });

  test('a record whose words never come is given up, and eats nothing', () => {
    const lost = [
      DEVICE + EVENT[0],
      DEVICE + EVENT[1],
      ...Array(100).fill('noise'),
      'STE[0]: 0x0000000000000001',
      'word 0x1234',
    ];
    expect(summaries(lost.join('\n'))).toEqual([]);
  });

  test('the decoded line of newer kernels is explained if its words are not there, and not twice if they are', () => {
    const decoded = `${DEVICE}event: F_TRANSLATION client: 0000:00:05.0 sid: 0x28 ssid: 0x1 iova: 0x20010 ipa: 0x0`;
    expect(summaries(decoded)).toEqual(['F_TRANSLATION: StreamID 0x28, SubstreamID 0x1: access to 0x20010']);
    const same = decoded.replace('ssid: 0x1 iova: 0x20010', 'ssid: 0x0 iova: 0x10000000');
    expect(summaries([...EVENT.map((line) => DEVICE + line), same].join('\n'))).toEqual([FAULT]);
  });

  test.each([
    ['C_BAD_STE client: (unassigned sid) sid: 0x1f ssid: 0x0', 'C_BAD_STE: StreamID 0x1f'],
    [
      'F_CD_FETCH client: 0000:01:00.0 sid: 0x100 ssid: 0x2 fetch_addr: 0x80001000',
      'F_CD_FETCH: StreamID 0x100, SubstreamID 0x2: the fetch of 0x80001000 failed',
    ],
  ])('the decoded line of an event without an input address: %s', (line, summary) => {
    expect(summaries(`${DEVICE}event: ${line}`)).toEqual([summary]);
  });

  test('carriage returns, colours and NUL bytes hide nothing and come out as they went in', () => {
    const lines = EVENT.map((line) => `\u001b[31m[    1.0] ${DEVICE}${line}\u001b[0m\u0000\r\n`);
    const { findings, out } = explain(lines.join(''));
    expect(findings.map(({ summary }) => summary)).toEqual([FAULT]);
    expect(out.startsWith(lines.join(''))).toBe(true);
  });

  test('causes are listed once, then counted', () => {
    const twice = [...EVENT, ...EVENT].map((line) => DEVICE + line).join('\n');
    const { out, explainer } = explain(twice);
    expect(out.match(/likely:/g)).toHaveLength(1);
    expect(out).toContain('(number 2 of its kind)');
    expect(out).toContain('smmulab translate IMAGE --sid 0x28 --iova 0x10000000 --write');
    expect(explainer.summary).toMatchObject([{ name: 'F_TRANSLATION', sid: 0x28, count: 2, access: 'write' }]);
  });
});

describe('error lines', () => {
  test.each([
    ['EVTQ overflow detected -- events lost', 'the event queue was full: events were lost'],
    ['PRIQ overflow detected -- requests lost', 'the PRI queue was full: page requests were lost'],
    [
      'unexpected global error reported (0x00000105), this could be serious',
      'GERROR 0x00000105: CMDQ_ERR, EVENTQ_ABT_ERR, SFM_ERR',
    ],
    ['device has entered Service Failure Mode!', 'SFM_ERR: the SMMU has stopped (service failure mode)'],
    ['CMDQ MSI write aborted', 'the write of the CMDQ interrupt message was aborted'],
    ['EVTQ write aborted -- events may have been lost', 'writing the EVTQ was aborted: records may be lost'],
    [
      'CMDQ error (cons 0x03000022): ATC invalidate timeout',
      'command queue stopped at index 34: CERROR_ATC_INV_SYNC: a device did not answer an ATC invalidation',
    ],
    [
      'CMD_SYNC timeout at 0x00000119 [hwprod 0x00000119, hwcons 0x00000117]',
      'the CMD_SYNC before 0x00000119 was not done in time: CONS 0x00000117 has not reached PROD 0x00000119',
    ],
    ['CMD_SYNC timeout', 'a CMD_SYNC was not done in time'],
    ['retrying command fetch', 'the command that could not be fetched is tried again'],
    ['GBPA not responding to update', 'GBPA.Update stays set: the SMMU does not take the bypass attributes'],
    ['failed to enable command queue', 'the SMMU did not answer while the driver wanted to enable command queue'],
    [
      '\tsid 0x00000100.0x00005: [3L] unprivileged RW access at iova 0x0000000012345000',
      'page request of StreamID 0x100, SubstreamID 0x5: unprivileged RW of 0x12345000, group 3, the last of it; refused',
    ],
    [
      'VINTF0: VCMDQ1/LVCMDQ1: GERRORN=0x0, GERROR=0x1, CONS=0x1000005',
      'VINTF0: VCMDQ1/LVCMDQ1: active error CMDQ_ERR; CONS index 5, CERROR_ILL: an illegal command',
    ],
    ['CMDQ timeout', 'no room in the command queue in time'],
    [
      'unexpected error reported. vintf_map: 0000000000000003, vcmdq_map 00000000:00000000:00000000:00000004',
      'CMDQV error: VINTF 0, 1; VCMDQ 2',
    ],
    [
      'unexpected error reported. vintf_map: 0000000000000000, vcmdq_map: 00000000000000010000000000000000',
      'CMDQV error: no VINTF; VCMDQ 64',
    ],
    [
      'VINTF1: VCMDQ3/LVCMDQ1: failed to disable, STATUS=0x00000003',
      'VINTF1: VCMDQ3/LVCMDQ1 could not be disabled: STATUS 0x00000003, enabled, error 1',
    ],
  ])('%s', (line, summary) => {
    const { findings, explainer } = explain(DEVICE + line);
    expect(findings.map((one) => one.summary)).toEqual([summary]);
    expect(explainer.failed).toBe(true);
    expect(findings[0]?.likely.length).toBeGreaterThan(0);
    expect(JSON.stringify(findings)).not.toMatch(/\{[a-z]+\}/);
  });

  test('the command that was skipped is decoded', () => {
    const lines = ['skipping command in error state:', '\t0x0000000000003046', '\t0x0000000000000000'].map(
      (line) => DEVICE + line,
    );
    expect(explain(lines.join('\n')).findings).toMatchObject([
      {
        kind: 'cmd',
        name: 'CMD_SYNC',
        error: true,
        words: ['0x3046', '0x0'],
        summary: expect.stringContaining('CMD-SYNC-CS'),
      },
    ]);
  });
});

describe('structures printed as words', () => {
  const WORDS = ['0x0000000044a1700b', '0x00000000000000d6', ...Array(6).fill('0x0000000000000000')];
  test.each([
    ['a line a word', WORDS.map((word, i) => `STE[${i}]: ${word}`).join('\n')],
    ['behind a header', `STE for sid 0x28:\n${WORDS.map((word, i) => ` [${i}] = ${word}`).join('\n')}`],
    ['in one line', `STE: ${WORDS.join(' ')}`],
    [
      'as a hexdump',
      `STE:\n00000000: 0b 70 a1 44 00 00 00 00 d6 00 00 00 00 00 00 00  .p.D............\n${[1, 2, 3].map((i) => `000000${i}0: ${Array(16).fill('00').join(' ')}  ................`).join('\n')}`,
    ],
  ])('an STE %s', (_, text) => {
    expect(explain(text).findings).toMatchObject([
      { kind: 'ste', error: false, words: ['0x44a1700b', '0xd6', '0x0', '0x0', '0x0', '0x0', '0x0', '0x0'] },
    ]);
  });

  test("another driver's failure is not the SMMU's", () => {
    expect(summaries('usb 1-1: cd: failed to enable port 3\n')).toEqual([]);
  });

  test('words about a CD-ROM are not a CD', () => {
    expect(summaries('CD: /dev/sr0 found\nmem at 0x1 0x2 0x3 0x4\nmem at 0x5 0x6 0x7 0x8\n')).toEqual([]);
  });
});

describe('traces of QEMU', () => {
  test.each([
    ['smmuv3_record_event C_BAD_STE sid=0x8', 'C_BAD_STE: StreamID 0x8', true],
    ['smmuv3_record_event SMMU_EVT_F_TRANSLATION sid=8', 'F_TRANSLATION: StreamID 0x8', true],
    [
      'smmuv3_cmdq_consume_error Error on SMMU_CMD_CFGI_STE command execution: 1',
      'QEMU refused CMD_CFGI_STE: CERROR_ILL: an illegal command',
      true,
    ],
    [
      'smmuv3_translate_abort smmuv3-iommu-memory-region-8-0 sid=0x8 abort on iova:0x1000 is_write=1',
      'StreamID 0x8: access to 0x1000 was aborted by the STE',
      true,
    ],
    [
      'smmuv3-iommu-memory-region-16-0 translation failed for iova=0x0 (SMMU_EVT_F_TRANSLATION)',
      'F_TRANSLATION: access to 0x0 failed',
      true,
    ],
    [
      'smmuv3_cmdq_opcode <--- SMMU_CMD_SYNC',
      'the guest sent CMD_SYNC: wait for earlier commands of this queue',
      false,
    ],
    ['smmuv3_cmdq_cfgi_ste streamid= 0x10', 'CMD_CFGI_STE: drop the STE and CDs of StreamID 0x10', false],
    ['smmuv3_cmdq_cfgi_ste streamid =8', 'CMD_CFGI_STE: drop the STE and CDs of StreamID 0x8', false],
    ['smmuv3_write_mmio addr: 0x20 val:0x1 size: 0x4(0)', 'write of CR0: 0x1', false],
    [
      'smmu_ptw_invalid_pte stage=2 level=3 base@=0x1000 pte@=0x1008 offset=1 pte=0x0',
      'stage 2: the level 3 descriptor at 0x1008 is invalid: 0x0',
      false,
    ],
    ['smmuv3_decode_cd_tt TT[0]:tsz:16 ttb:0x44a16000 granule_sz:12 had:0', 'TTB0 at 0x44a16000, 48-bit input', false],
  ])('%s', (line, summary, error) => {
    expect(explain(line).findings).toMatchObject([{ summary, error }]);
  });

  test('a mere trace is explained once', () => {
    expect(summaries('smmuv3_cmdq_opcode <--- SMMU_CMD_SYNC\n'.repeat(5))).toHaveLength(1);
  });
});

const REAL = readFileSync(recorded('dmesg-smmu.txt'), 'latin1');

test('a log cut into pieces anywhere gives the same text and findings', () => {
  const whole = explain(REAL);
  fc.assert(
    fc.property(fc.array(fc.nat(REAL.length), { maxLength: 20 }), (cuts) => {
      const explainer = new LogExplainer();
      const at = [0, ...cuts.toSorted((a, b) => a - b), REAL.length];
      const out = at.slice(1).map((end, i) => explainer.push(REAL.slice(at[i], end)));
      expect(out.join('') + explainer.end()).toBe(whole.out);
      expect(explainer.findings).toEqual(whole.findings);
    }),
    { numRuns: 30 },
  );
});

test('a line of megabytes takes no longer than its bytes, and a message at its end is found', () => {
  const long = `${'STE['.repeat(1 << 20)} ${DEVICE}CMDQ timeout`;
  expect(explain(long).out.startsWith(`${long}\n`)).toBe(true);
  expect(summaries(long)).toEqual(['no room in the command queue in time']);
});

test('mutated real logs never crash, and what is not an explanation passes through untouched', () => {
  const mutation = fc.record({ at: fc.nat(REAL.length - 1), text: fc.string({ maxLength: 12 }), drop: fc.nat(40) });
  fc.assert(
    fc.property(fc.array(mutation, { minLength: 1, maxLength: 30 }), (mutations) => {
      let text = REAL;
      for (const { at, text: put, drop } of mutations) text = text.slice(0, at) + put + text.slice(at + drop);
      const { out } = explain(text);
      const passed = out.split('\n').filter((line) => !line.startsWith('    | '));
      expect(passed.join('\n').trimEnd()).toBe(
        text
          .split('\n')
          .filter((line) => !line.startsWith('    | '))
          .join('\n')
          .trimEnd(),
      );
    }),
    { numRuns: 100 },
  );
});
