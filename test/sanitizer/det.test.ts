import { describe, expect, test } from 'vitest';
import * as commands from '../../spec/commands.ts';
import * as spec from '../../spec/registers.ts';
import { CMDQ, EVENTQ } from '../hw/harness.ts';
import { LAB_CONFIG, nested, S2ROOT, SanitizerLab, s2 } from './lab.ts';

const SID = 0x10;

/** Stream 0x10 stalls at its first fault: stage 2 maps nothing. */
function stalling(): SanitizerLab {
  const lab = new SanitizerLab({}, LAB_CONFIG, { endpoints: [{ name: 'dev10', streamIds: [SID], canStall: true }] });
  lab.boot();
  lab.install(SID, s2(3, S2ROOT, { S2S: 1 }));
  lab.dma(SID);
  return lab;
}

const resume = (STAG = 0) => commands.CMD_RESUME.encode({ StreamID: SID, STAG, Ac: 'TERMINATE', Ab: 'ABORT' });

describe('stalled transactions [3.12.2.2]', () => {
  test('DET-1: detached with one outstanding', () => {
    const lab = stalling();
    lab.remove(SID);
    lab.done('detach', SID);
    expect(lab.rules).toEqual(['DET-1']);
  });

  test('DET-1: given away with one outstanding', () => {
    const lab = stalling();
    lab.note('stream', 'give', SID, 'vm', 'smmu0');
    expect(lab.rules).toEqual(['DET-1']);
  });

  test.each([
    ['CMD_RESUME', resume()],
    ['CMD_STALL_TERM', commands.CMD_STALL_TERM.encode({ StreamID: SID })],
  ])('answered by %s, without a CMD_SYNC [4.8]', (_, command) => {
    const lab = stalling();
    lab.remove(SID);
    lab.raw(command);
    lab.done('detach', SID);
    expect(lab.rules).toEqual([]);
  });

  test('DET-3: a STAG that nobody has, or twice', () => {
    const lab = stalling();
    lab.raw(resume(7));
    expect(lab.rules).toEqual(['DET-3']);
    const twice = stalling();
    twice.raw(resume(), resume());
    expect(twice.rules).toEqual(['DET-3']);
  });

  test('DET-3: the stall of a STAG was ended by SMMUEN=0 before it was answered [6.3.9.6]', () => {
    const lab = stalling();
    lab.regs.write(spec.CR0, spec.CR0.bit('CMDQEN'));
    lab.raw(resume());
    expect(lab.rules).toEqual(['DET-3']);
  });

  test('DET-4: S2S for a device that must not be stalled', () => {
    const config = { ...LAB_CONFIG, IDR0: { ...LAB_CONFIG.IDR0, STALL_MODEL: 'STALL_TERMINATE' } } as const;
    const lab = new SanitizerLab({}, config).boot();
    lab.install(SID, s2(3, S2ROOT, { S2S: 1 }));
    expect(lab.rules).toEqual(['DET-4']);
  });
});

describe('DET-8: queues [3.5.1]', () => {
  test.each([
    ['Command', CMDQ],
    ['Event', EVENTQ],
  ])('memory of the enabled %s queue given back', (_, pa) => {
    const lab = new SanitizerLab().boot();
    lab.freePage(pa);
    expect(lab.rules).toEqual(['DET-8']);
  });

  test('PROD out of reach of CONS', () => {
    const lab = new SanitizerLab().boot();
    const prod = lab.regs.read(spec.CMDQ_PROD);
    lab.regs.write(spec.CMDQ_PROD, (prod - 1) & 0x1ff);
    expect(lab.rules).toEqual(['DET-8']);
  });

  test('memory of a disabled queue', () => {
    const lab = new SanitizerLab().boot();
    lab.regs.write(spec.CR0, 0);
    lab.freePage(CMDQ);
    expect(lab.rules).toEqual([]);
  });
});

test("DET-10: MTCFG of a VM's in a nested STE", () => {
  const lab = new SanitizerLab().boot();
  lab.install(SID, nested(3, S2ROOT, { MTCFG: 1 }));
  expect(lab.rules).toEqual(['DET-10']);
});
