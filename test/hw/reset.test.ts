import { expect, test } from 'vitest';
import {
  CMDQ_BASE,
  CR0,
  CR0ACK,
  GBPA,
  GERROR,
  GERRORN,
  IDR1,
  IRQ_CTRL,
  IRQ_CTRLACK,
  STRTAB_BASE,
} from '../../spec/index.ts';
import { twoSmmus } from '../../src/hw/machine.ts';
import type { Announcement } from '../../src/hw/observer.ts';

test('reset: CR0, CR0ACK, IRQ_CTRL, IRQ_CTRLACK, GERROR and GERRORN read 0, the others as at power-on; ID registers stay [3.11, 6.3.9, 6.3.16, 6.3.19]', () => {
  const machine = twoSmmus();
  const [smmu, other] = machine.smmus;
  if (smmu === undefined || other === undefined) throw new Error('two SMMUs');
  const read = (register: { readonly offset: number }): number => smmu.mmioRead32(register.offset);
  const before = { strtab: read(STRTAB_BASE), cmdq: read(CMDQ_BASE), gbpa: read(GBPA), idr1: read(IDR1) };
  smmu.mmioWrite64(STRTAB_BASE.offset, 0x4000_0000n);
  smmu.mmioWrite64(CMDQ_BASE.offset, 0x4100_0000n);
  smmu.mmioWrite32(GBPA.offset, (GBPA.bit('ABORT', 'Update') | before.gbpa) >>> 0);
  for (const each of [smmu, other]) {
    each.mmioWrite32(CR0.offset, CR0.bit('CMDQEN', 'EVENTQEN'));
    each.mmioWrite32(IRQ_CTRL.offset, IRQ_CTRL.bit('GERROR_IRQEN'));
  }
  smmu.errors.raise(GERROR.bit('CMDQ_ERR'));
  machine.drain();
  expect(read(CR0ACK)).toBe(CR0.bit('CMDQEN', 'EVENTQEN'));
  expect(read(GBPA) & GBPA.bit('ABORT')).not.toBe(0);
  expect(read(GERROR)).not.toBe(0);

  machine.resetSmmu(smmu.name);
  for (const register of [CR0, CR0ACK, IRQ_CTRL, IRQ_CTRLACK, GERROR, GERRORN]) expect(read(register)).toBe(0);
  expect({ strtab: read(STRTAB_BASE), cmdq: read(CMDQ_BASE), gbpa: read(GBPA), idr1: read(IDR1) }).toEqual(before);
  expect(other.mmioRead32(CR0ACK.offset)).toBe(CR0.bit('CMDQEN', 'EVENTQEN'));
});

test('reset: listeners are told, with what the caches did [3.11]', () => {
  const acts: Announcement[] = [];
  const machine = twoSmmus({ observer: (act) => acts.push(act) });
  machine.resetSmmu('smmu1', 'kept');
  machine.resetSmmu('smmu0');
  expect(acts.filter(({ kind }) => kind === 'reset')).toEqual([
    { kind: 'reset', smmu: 'smmu1', caches: 'kept' },
    { kind: 'reset', smmu: 'smmu0', caches: 'lost' },
  ]);
});
