/** What software says, and what follows from it: operations that begin, are done and fail; to whom a stream belongs. */
import { describe, expect, test } from 'vitest';
import * as commands from '../../spec/commands.ts';
import { COMMAND_BYTES, GERROR, GERRORN, opcodeOf, type Words } from '../../spec/index.ts';
import type { DriverParts } from '../../src/driver/arm-smmu-v3/index.ts';
import { type CoreParts, coreParts } from '../../src/driver/iommu/parts.ts';
import { runCase } from '../../src/testing/case.ts';
import type { Operation } from '../../src/testing/operation.ts';
import { rulesKept } from '../../src/testing/properties/index.ts';
import { CMDQ, SYNC_NONE } from '../hw/harness.ts';
import { abort, DATA, nested, page2, S2ROOT, SanitizerLab, s2 } from './lab.ts';

const SID = 0x10;
const OTHER = 0x11;
const IPA = 0x20_3000n;

/** Stream 0x10 nested under VMID 3, which `vm` owns. */
function guest(): SanitizerLab {
  const lab = new SanitizerLab().boot();
  lab.vmid('alloc', 3);
  lab.map(S2ROOT, IPA, page2(DATA));
  lab.install(SID, nested(3));
  return lab;
}

const say = (lab: SanitizerLab, act: 'begin' | 'done' | 'fail', name: string, sid = SID): void =>
  lab.note('operation', act, sid, name, 'smmu0');

describe('operations on a stream', () => {
  test('CFG-1 is found when the attach is done, not when a transaction happens to come [3.21.3]', () => {
    const lab = new SanitizerLab().boot();
    say(lab, 'begin', 'attach to paging');
    lab.store(lab.ste(SID), s2(3));
    expect(lab.rules).toEqual([]);
    say(lab, 'done', 'attach to paging');
    expect(lab.rules).toContain('CFG-1');
  });

  test('a transaction in the middle of an operation is relied on by nobody, one after it is', () => {
    const lab = new SanitizerLab().boot();
    say(lab, 'begin', 'attach to paging');
    lab.storeWords(lab.ste(SID), s2(3), [1, 2, 3, 4, 5, 6, 7]);
    lab.cfgiSte(SID);
    lab.storeWords(lab.ste(SID), s2(3), [0]);
    lab.dma(SID);
    expect(lab.rules).toEqual([]);
    lab.cfgiSte(SID);
    say(lab, 'done', 'attach to paging');
    expect(lab.rules).toEqual([]);
    lab.storeWords(lab.ste(SID), abort(), [0]);
    lab.dma(SID);
    expect(lab.rules).toEqual(['CFG-1']);
  });

  test('what was left in doubt is judged with the last operation under way', () => {
    const lab = new SanitizerLab().boot();
    say(lab, 'begin', 'detach');
    say(lab, 'begin', 'attach to paging');
    lab.storeWords(lab.ste(SID), s2(3), [1, 2, 3, 4, 5, 6, 7]);
    lab.cfgiSte(SID);
    lab.storeWords(lab.ste(SID), s2(3), [0]);
    say(lab, 'done', 'detach');
    expect(lab.rules).toEqual([]);
    say(lab, 'done', 'attach to paging');
    expect(lab.rules).toEqual(['CFG-1']);
  });

  test('DET-6: detached, and the STE is what it was', () => {
    const lab = guest();
    say(lab, 'done', 'attach to nested');
    say(lab, 'done', 'detach');
    expect(lab.rules).toEqual(['DET-6']);
  });

  test('VMID-16: an attach fails and gives the VMID back that the STE names', () => {
    const lab = guest();
    say(lab, 'begin', 'attach to nested');
    lab.vmid('free', 3);
    say(lab, 'fail', 'attach to nested');
    expect(lab.rules).toEqual(['VMID-1', 'VMID-16']);
  });

  test('VMID-16: an attach that fails and gives back what is clean is none', () => {
    const lab = guest();
    lab.vmid('alloc', 4);
    say(lab, 'begin', 'attach to nested');
    lab.vmid('free', 4);
    say(lab, 'fail', 'attach to nested');
    expect(lab.rules).toEqual([]);
  });
});

describe('unmaps [3.21.1]', () => {
  const unmap = (lab: SanitizerLab, act: 'begin' | 'done', at: bigint): void =>
    lab.sanitizer.announce({ what: 'operation', act, where: '', id: at, owner: 'unmap', bytes: 4096 });

  test('TLB-1 when the unmap is done; one of another range says nothing', () => {
    const lab = guest();
    unmap(lab, 'begin', IPA);
    lab.put(S2ROOT, 3, IPA, 0n);
    unmap(lab, 'done', 0n);
    expect(lab.rules).toEqual([]);
    unmap(lab, 'done', IPA);
    expect(lab.rules).toEqual(['TLB-1']);
  });

  test('what was taken away before the unmap began is not its affair', () => {
    const lab = guest();
    lab.put(S2ROOT, 3, IPA, 0n);
    unmap(lab, 'begin', IPA);
    unmap(lab, 'done', IPA);
    expect(lab.rules).toEqual([]);
  });

  test('one whose end is told late, in the middle of another of the same addresses, says nothing of that one', () => {
    const lab = guest();
    unmap(lab, 'begin', IPA);
    unmap(lab, 'begin', IPA);
    lab.put(S2ROOT, 3, IPA, 0n);
    unmap(lab, 'done', IPA);
    expect(lab.rules).toEqual([]);
    unmap(lab, 'done', IPA);
    expect(lab.rules).toEqual(['TLB-1']);
  });

  test('a page that goes back to its owner is given back', () => {
    const lab = guest();
    lab.put(S2ROOT, 3, IPA, 0n);
    lab.note('page', 'give', DATA, 'user');
    expect(lab.rules).toEqual(['TLB-1']);
  });
});

describe('streams that change hands', () => {
  test('DET-9: while the STE of the owner before is in a cache', () => {
    const lab = guest();
    lab.storeWords(lab.ste(SID), abort(), [0]);
    lab.note('stream', 'give', SID, 'vm1', 'smmu0');
    expect(lab.rules).toEqual(['DET-9']);
  });

  test('DET-9: while it stands in memory, where attachments are told of', () => {
    const lab = guest();
    say(lab, 'begin', 'attach to nested');
    say(lab, 'done', 'attach to nested');
    lab.note('stream', 'free', SID, '', 'smmu0');
    expect(lab.rules).toEqual(['DET-9']);
  });

  test('DET-9: not once it is gone, nor where nobody tells of attachments', () => {
    const gone = guest();
    say(gone, 'begin', 'detach');
    gone.remove(SID);
    say(gone, 'done', 'detach');
    gone.note('stream', 'free', SID, '', 'smmu0');
    expect(gone.rules).toEqual([]);
    const silent = guest();
    silent.note('stream', 'give', SID, 'vm1', 'smmu0');
    expect(silent.rules).toEqual([]);
  });
});

describe('commands for a VM on the own queue', () => {
  const forVm = (...list: readonly Words[]): string[] => {
    const lab = guest();
    lab.vmid('alloc', 4, 'other');
    lab.install(OTHER, nested(4, S2ROOT + 0x1_0000n));
    say(lab, 'begin', 'invalidate for a VM');
    lab.commands(...list);
    say(lab, 'done', 'invalidate for a VM');
    // What comes now is the host's own.
    lab.commands(commands.CMD_TLBI_NH_ALL.encode({ VMID: 4 }));
    return lab.rules;
  };

  test.each([
    ['its own VMID and StreamID', 3, SID, []],
    ["VMID-8: another VM's VMID", 4, SID, ['VMID-8']],
    ['ASID-8: none', 0, SID, ['ASID-8']],
    ["DET-9: another VM's StreamID", 3, OTHER, ['DET-9']],
  ] as const)('%s', (_, VMID, sid, rules) => {
    const found = forVm(
      commands.CMD_TLBI_NH_ASID.encode({ VMID, ASID: 7 }),
      commands.CMD_CFGI_CD_ALL.encode({ StreamID: sid }),
    );
    expect(found).toEqual(rules);
  });

  test('what the host queued before is not for the VM, though hardware consumes it later [4.7.3]', () => {
    const late = (batch: readonly Words[]): string[] => {
      const lab = guest();
      const { regs, machine } = lab;
      lab.vmid('alloc', 4, 'other');
      lab.install(OTHER, nested(4, S2ROOT + 0x1_0000n));
      // A command that is none holds up those behind it.
      const stuck = CMDQ + BigInt(regs.cons * COMMAND_BYTES);
      lab.commands(Uint32Array.of(0xff, 0, 0, 0), commands.CMD_CFGI_CD_ALL.encode({ StreamID: OTHER }));
      say(lab, 'begin', 'invalidate for a VM');
      lab.commands(...batch);
      machine.memory.write64(stuck, SYNC_NONE[0]);
      regs.write(GERRORN, regs.read(GERROR));
      say(lab, 'done', 'invalidate for a VM');
      return lab.rules;
    };
    expect(late([commands.CMD_CFGI_CD_ALL.encode({ StreamID: SID })])).toEqual([]);
    expect(late([commands.CMD_CFGI_CD_ALL.encode({ StreamID: OTHER })])).toEqual(['DET-9']);
  });
});

describe('the whole stack tells: what is missing is found where it is relied on', () => {
  const LIFE: readonly Operation[] = [
    { op: 'hwptAlloc', as: 's0', dev: 'd0', ioas: 'a0', nestParent: true },
    { op: 'viommuAlloc', as: 'v0', dev: 'd0', parent: 's0' },
    { op: 'vdeviceAlloc', as: 'x0', dev: 'd0', viommu: 'v0', vsid: 1 },
    { op: 'nestedAlloc', as: 'n0', dev: 'd0', on: 'v0', vste: 'translate' },
    { op: 'attach', dev: 'd0', to: 'n0' },
    { op: 'unmap', ioas: 'a0', page: 8, pages: 1 },
    { op: 'invalidate', on: 'v0', commands: [{ command: 'NH_ALL' }] },
    { op: 'detach', dev: 'd0' },
    { op: 'destroy', name: 'n0' },
    { op: 'destroy', name: 'x0' },
    { op: 'destroy', name: 'v0' },
  ];

  /** Rule and operation at which a driver with a changed part is found; no DMA ever happens. */
  function found(parts: (shipped: DriverParts) => DriverParts, core: CoreParts = coreParts()): string {
    const config = { policy: 'at-attach', streamTable: 'linear', defaultDomain: 'identity' } as const;
    const steps = LIFE.map((operation, id) => ({ id, operation }));
    const { finding } = runCase(rulesKept, { config, steps }, { extras: { parts, coreParts: core } });
    return finding === null ? 'nothing' : `${finding.rule} at ${LIFE[finding.step - 1]?.op}`;
  }

  const dropping =
    (opcode: number) =>
    (shipped: DriverParts): DriverParts => ({
      ...shipped,
      commandQueue: {
        issue: (queue, list, sync) =>
          shipped.commandQueue.issue(
            queue,
            list.filter((words) => opcodeOf(words) !== opcode),
            sync,
          ),
      },
    });

  test('the shipped driver', () => {
    expect(found((shipped) => shipped)).toBe('nothing');
  });

  test('no TLBI at an unmap: TLB-1 when the unmap returns [3.21.1]', () => {
    expect(found(dropping(commands.CMD_TLBI_S2_IPA.opcode))).toBe('TLB-1 at unmap');
  });

  test('no invalidation of what combines both stages: TLB-5 [4.4.3.1]', () => {
    const silent = (shipped: DriverParts): DriverParts => ({
      ...shipped,
      vmidPolicy: { ...shipped.vmidPolicy, clearsStage1: () => false },
    });
    expect(found(silent)).toBe('TLB-5 at unmap');
  });

  test('a detach that never reaches the driver: DET-6 when it returns [3.21.3]', () => {
    const core = coreParts();
    const forgetful: CoreParts = {
      ...core,
      attachDevice: (domain, dev, old) => {
        if (old.type !== 'nested') core.attachDevice(domain, dev, old);
      },
    };
    expect(found((shipped) => shipped, forgetful)).toBe('DET-6 at detach');
  });

  test("another VM's VMID in a VM's invalidation: VMID-8", () => {
    const wrong = (shipped: DriverParts): DriverParts => ({
      ...shipped,
      nested: {
        ...shipped.nested,
        convertCommand: (command, vmid, sidOf) => shipped.nested.convertCommand(command, vmid + 1, sidOf),
      },
    });
    expect(found(wrong)).toBe('VMID-8 at invalidate');
  });
});
