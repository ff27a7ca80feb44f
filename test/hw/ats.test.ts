import { describe, expect, test } from 'vitest';
import * as spec from '../../spec/registers.ts';
import { type Endpoint, linuxNesting, type SmmuConfig } from '../../src/hw/index.ts';
import { EVENTQ, machineWith, PRIQ, Regs, SYNC_NONE } from './harness.ts';
import { mapPage, PAGE_RO, PAGE_RW, stage2Ste, turnOn, writeSte } from './stage2.ts';

const BDF = 0x30;
/** Offsets that PCI enumeration finds: ATS at 0x100, PRI at 0x120, PASID at 0x140; control words at +4. */
const ATS = 0x104;
const PRI = 0x124;
const PASID = 0x144;

interface Rig {
  readonly r: Regs;
  readonly dev: Endpoint;
}

function rig(config: SmmuConfig = linuxNesting, ste: Parameters<typeof stage2Ste>[1] = { EATS: 1 }): Rig {
  const r = new Regs(
    machineWith(config, {
      endpoints: [{ name: 'dev', streamIds: [BDF], bdf: BDF, ats: true, pri: true, ssidBits: 8 }],
    }),
  );
  r.start();
  turnOn(r);
  r.write64(spec.PRIQ_BASE, PRIQ | 2n);
  r.write(spec.CR0, spec.CR0.bit('SMMUEN', 'CMDQEN', 'EVENTQEN', 'PRIQEN', 'ATSCHK'));
  writeSte(r, BDF, stage2Ste(3, ste));
  mapPage(r, 0, 0x4080_0000n | PAGE_RW);
  const { bus } = r.machine;
  bus.pciWrite32(BDF, ATS, 0x80000000);
  bus.pciWrite32(BDF, PRI, 1);
  return { r, dev: r.machine.endpoint('dev') };
}

const ats = (dev: Endpoint) => {
  if (dev.ats === null) throw new Error('no ATS');
  return dev.ats;
};

const request = (address: bigint, noWrite = false) => ({
  StreamID: BDF,
  SubstreamID: -1,
  address,
  privileged: false,
  execute: false,
  noWrite,
});

const event = (r: Regs, index: number): bigint => r.machine.memory.read64(EVENTQ + BigInt(32 * index));

test('enumeration finds ATS, PRI and PASID extended capabilities, and all ones where no function is', () => {
  const { r } = rig();
  const { bus } = r.machine;
  expect(bus.pciRead32(BDF, 0)).toBe(0x00051b36);
  expect(bus.pciRead32(BDF, 0x100)).toBe(0x1201000f);
  expect(bus.pciRead32(BDF, 0x120)).toBe(0x14010013);
  expect(bus.pciRead32(BDF, 0x140)).toBe(0x0001001b);
  expect((bus.pciRead32(BDF, PASID) >>> 8) & 0x1f).toBe(8);
  expect(bus.pciRead32(0x31, 0)).toBe(0xffffffff);
});

describe('Translation Requests [3.9.1]', () => {
  test('success gives the physical address, size and permissions, and lands in the ATC', () => {
    const { dev } = rig();
    const completion = ats(dev).translate(request(0x123n));
    expect(completion).toMatchObject({
      status: 'success',
      entry: { base: 0n, sizeLog2: 12, output: 0x4080_0000n, read: true, write: true },
    });
    expect(ats(dev).atc.size).toBe(1);
  });

  test('a page without write permission grants read; nothing mapped grants nothing, without an event', () => {
    const { r, dev } = rig();
    mapPage(r, 1, 0x4090_0000n | PAGE_RO);
    expect(ats(dev).translate(request(0x1000n))).toMatchObject({ entry: { read: true, write: false } });
    expect(ats(dev).translate(request(0x2000n))).toMatchObject({ entry: { read: false, write: false } });
    expect(ats(dev).atc.size).toBe(1);
    expect(r.read(spec.EVENTQ_PROD)).toBe(0);
  });

  test('EATS 0: UR and F_BAD_ATS_TREQ', () => {
    const { r, dev } = rig(linuxNesting, { EATS: 0 });
    expect(ats(dev).translate(request(0n)).status).toBe('UR');
    expect(event(r, 0)).toBe((BigInt(BDF) << 32n) | 0x05n);
  });

  test('an unusable STE: CA, recorded only with CR2.REC_CFG_ATS', () => {
    const { r, dev } = rig();
    writeSte(r, BDF, { V: 0 });
    expect(ats(dev).translate(request(0n)).status).toBe('CA');
    expect(r.read(spec.EVENTQ_PROD)).toBe(0);
  });
});

describe('Translated access and CMD_ATC_INV [3.9.1, 4.5.1]', () => {
  const inv = (address: bigint, size: bigint): readonly [bigint, bigint] => [
    (BigInt(BDF) << 32n) | 0x40n,
    address | size,
  ];

  test('the ATC outlives the TLBI and dies by CMD_ATC_INV of its range', () => {
    const { r, dev } = rig();
    r.machine.memory.write8(0x4080_0000n, 1);
    r.machine.memory.write8(0x4090_0000n, 2);
    const read = (): unknown => dev.read(0n, 1, { ats: true });
    expect(read()).toEqual({ status: 'ok', data: Uint8Array.of(1) });
    mapPage(r, 0, 0x4090_0000n | PAGE_RW);
    r.issue([(3n << 32n) | 0x28n, 0n], SYNC_NONE);
    expect(read()).toEqual({ status: 'ok', data: Uint8Array.of(1) });
    r.issue(inv(0x1000n, 0n), SYNC_NONE);
    expect(read()).toEqual({ status: 'ok', data: Uint8Array.of(1) });
    r.issue(inv(0x1000n, 1n), SYNC_NONE);
    expect(read()).toEqual({ status: 'ok', data: Uint8Array.of(2) });
    r.issue(inv(0n, 52n), SYNC_NONE);
    expect(ats(dev).atc.size).toBe(0);
  });

  test('ATSCHK refuses a Translated access of a stream with EATS 0: F_TRANSL_FORBIDDEN', () => {
    const { r, dev } = rig();
    dev.read(0n, 1, { ats: true });
    writeSte(r, BDF, stage2Ste(3, { EATS: 0 }));
    r.issue([(BigInt(BDF) << 32n) | 3n, 0n], SYNC_NONE);
    expect(dev.read(0n, 1, { ats: true }).status).toBe('abort');
    expect(event(r, 0)).toBe((BigInt(BDF) << 32n) | 0x07n);
  });

  test('an endpoint that does not answer: the next CMD_SYNC fails with CERROR_ATC_INV_SYNC, and succeeds when retried', () => {
    const { r, dev } = rig();
    dev.read(0n, 1, { ats: true });
    ats(dev).hang = true;
    r.issue(inv(0n, 52n), SYNC_NONE, [0x30n, 0n]);
    expect([r.cons, r.err, r.errors]).toEqual([1, 3, 1]);
    expect(ats(dev).atc.size).toBe(1);
    r.acknowledge();
    expect([r.cons, r.errors]).toEqual([3, 0]);
  });

  test('ATS off in configuration space: invalidations get UR and complete; the ATC is empty', () => {
    const { r, dev } = rig();
    dev.read(0n, 1, { ats: true });
    r.machine.bus.pciWrite32(BDF, ATS, 0);
    expect(ats(dev).atc.size).toBe(0);
    r.issue(inv(0n, 52n), SYNC_NONE);
    expect([r.cons, r.errors]).toEqual([2, 0]);
  });

  test('SMMUEN 0: the command is ignored', () => {
    const { r, dev } = rig();
    dev.read(0n, 1, { ats: true });
    r.write(spec.CR0, spec.CR0.bit('CMDQEN'));
    r.issue(inv(0n, 52n), SYNC_NONE);
    expect([ats(dev).atc.size, r.cons]).toEqual([1, 2]);
  });

  test('Size above 52 is CERROR_ILL, or everything by the option', () => {
    const { r } = rig();
    r.issue(inv(0n, 53n));
    expect([r.cons, r.err]).toEqual([0, 1]);
    const all = rig({ ...linuxNesting, options: { atcInvOversize: 'all' } });
    all.dev.read(0n, 1, { ats: true });
    all.r.issue(inv(0n, 60n), SYNC_NONE);
    expect([ats(all.dev).atc.size, all.r.cons]).toEqual([0, 2]);
  });

  test('without IDR0.ATS it is CERROR_ILL, or taken without effect by the option [4.1.3]', () => {
    const { IDR0 } = linuxNesting;
    const config = { ...linuxNesting, IDR0: { ...IDR0, ATS: 0, PRI: 0, ATSRECERR: 0 } };
    const without = (options: SmmuConfig['options'] = {}): Regs => {
      const r = new Regs(machineWith({ ...config, options }));
      r.start();
      turnOn(r);
      return r;
    };
    const r = without();
    r.issue(inv(0n, 52n), SYNC_NONE);
    expect([r.cons, r.err]).toEqual([0, 1]);
    const ignored = without({ unsupportedCommands: 'ignored' });
    ignored.issue(inv(0n, 52n), SYNC_NONE);
    expect([ignored.cons, ignored.err]).toEqual([2, 0]);
    // A reserved opcode is still illegal.
    ignored.issue([0xffn, 0n]);
    expect(ignored.err).toBe(1);
  });

  test('PASIDs: a command with SSV reaches entries of its SubstreamID only, Global or no SSV reach all [PCIe ATS]', () => {
    const { dev } = rig();
    const { atc } = ats(dev);
    const fill = (): void => {
      atc.clear();
      for (const SubstreamID of [-1, 1, 2])
        atc.insert({
          SubstreamID,
          privileged: false,
          base: 0n,
          sizeLog2: 12,
          output: 0n,
          read: true,
          write: true,
          execute: false,
        });
    };
    const left = (): number[] => atc.entries.map((entry) => entry.SubstreamID);
    const base = { StreamID: BDF, addrHi: 0, addrLo: 0, spanLog2: 12 };
    fill();
    atc.invalidate({ ...base, SubstreamID: 1, global: false });
    expect(left()).toEqual([-1, 2]);
    atc.invalidate({ ...base, SubstreamID: 1, global: true });
    expect(left()).toEqual([]);
    fill();
    atc.invalidate({ ...base, SubstreamID: -1, global: false });
    expect(left()).toEqual([]);
    fill();
    atc.invalidate({ ...base, addrLo: 0x1000, SubstreamID: -1, global: false });
    expect(left()).toEqual([-1, 1, 2]);
  });
});

describe('PRI [chapter 8]', () => {
  const respond = (index: bigint, resp: bigint): readonly [bigint, bigint] => [
    (BigInt(BDF) << 32n) | 0x41n,
    (resp << 12n) | index,
  ];
  const message = (PRGIndex: number, last: boolean, SubstreamID = -1) => ({
    StreamID: BDF,
    SubstreamID,
    PRGIndex,
    address: 0x5000n,
    read: true,
    write: false,
    execute: false,
    privileged: false,
    last,
  });
  const entry = (r: Regs, i: number): bigint[] =>
    [0n, 8n].map((at) => r.machine.memory.read64(PRIQ + BigInt(16 * i) + at));

  test('a miss becomes a page request; CMD_PRI_RESP success lets the access go on', () => {
    const { r, dev } = rig();
    let edges = 0;
    r.machine.bus.onInterrupt(75, () => edges++);
    r.write(spec.IRQ_CTRL, spec.IRQ_CTRL.bit('PRIQ_IRQEN'));
    const result = dev.write(0x5000n, Uint8Array.of(7), { ats: true });
    expect(result.status).toBe('stall');
    expect(entry(r, 0)).toEqual([(0b0110n << 60n) | BigInt(BDF), 0x5000n]);
    expect([r.read(spec.PRIQ_PROD), edges]).toEqual([1, 1]);
    mapPage(r, 5, 0x4090_0000n | PAGE_RW);
    r.issue(respond(0n, 2n));
    expect(result.status === 'stall' && result.pending.result.status).toBe('ok');
    expect(r.machine.memory.read8(0x4090_0000n)).toBe(7);
  });

  test('invalid request aborts the access; failure also stops the function from asking', () => {
    const { r, dev } = rig();
    const one = dev.write(0x5000n, Uint8Array.of(7), { ats: true });
    r.issue(respond(0n, 1n));
    expect(one.status === 'stall' && one.pending.result.status).toBe('abort');
    const two = dev.write(0x5000n, Uint8Array.of(7), { ats: true });
    r.issue(respond(0n, 0n));
    expect(two.status === 'stall' && two.pending.result.status).toBe('abort');
    expect(r.machine.bus.pciRead32(BDF, PRI) & 0x10001).toBe(0x10000);
    expect(dev.write(0x5000n, Uint8Array.of(7), { ats: true }).status).toBe('abort');
  });

  test('PRIQEN 0: every request is answered failure without a PASID, Stop Markers are not answered', () => {
    const { r, dev } = rig();
    r.write(spec.CR0, spec.CR0.bit('SMMUEN', 'CMDQEN', 'EVENTQEN', 'ATSCHK'));
    ats(dev).send(message(3, false, 9));
    ats(dev).send({ ...message(4, true, 9), read: false });
    expect(ats(dev).responses).toEqual([{ PRGIndex: 3, SubstreamID: -1, code: 0xf }]);
    expect(r.read(spec.PRIQ_PROD)).toBe(0);
  });

  test('overflow: OVFLG toggles, Last gets Success, others vanish, and nothing is written until acknowledged', () => {
    const { r, dev } = rig();
    for (let i = 0; i < 4; i++) ats(dev).send(message(i, false));
    expect(r.read(spec.PRIQ_PROD)).toBe(4);
    ats(dev).send(message(7, false));
    ats(dev).send(message(7, true));
    expect(r.read(spec.PRIQ_PROD) >>> 0).toBe(0x80000004);
    expect(ats(dev).responses).toEqual([{ PRGIndex: 7, SubstreamID: -1, code: 0 }]);
    r.write(spec.PRIQ_CONS, 4);
    ats(dev).send(message(8, true));
    expect(r.read(spec.PRIQ_PROD) >>> 0).toBe(0x80000004);
    r.write(spec.PRIQ_CONS, 0x80000004);
    ats(dev).send(message(9, true));
    expect(r.read(spec.PRIQ_PROD) >>> 0).toBe(0x80000005);
  });

  test('overflow with a PASID: STE.PPAR decides whether the answer carries it; an unusable STE means failure', () => {
    const overflow = (ste: Parameters<typeof stage2Ste>[1]): unknown => {
      const { r, dev } = rig(linuxNesting, ste);
      for (let i = 0; i < 4; i++) ats(dev).send(message(i, false));
      ats(dev).send(message(7, true, 9));
      expect(r.read(spec.EVENTQ_PROD)).toBe(0);
      return ats(dev).responses;
    };
    expect(overflow({ PPAR: 1 })).toEqual([{ PRGIndex: 7, SubstreamID: 9, code: 0 }]);
    expect(overflow({ PPAR: 0 })).toEqual([{ PRGIndex: 7, SubstreamID: -1, code: 0 }]);
    expect(overflow({ V: 0 })).toEqual([{ PRGIndex: 7, SubstreamID: -1, code: 0xf }]);
  });

  test('an aborted write: PRIQ_ABT_ERR, failure for this and later requests until acknowledged [8.2]', () => {
    const { r, dev } = rig();
    r.write(spec.CR0, spec.CR0.bit('SMMUEN', 'CMDQEN', 'EVENTQEN'));
    r.write64(spec.PRIQ_BASE, 0x1000_0002n);
    r.write(spec.CR0, spec.CR0.bit('SMMUEN', 'CMDQEN', 'EVENTQEN', 'PRIQEN'));
    ats(dev).send(message(1, true));
    ats(dev).send(message(2, true));
    expect(r.errors).toBe(spec.GERROR.bit('PRIQ_ABT_ERR'));
    expect(ats(dev).responses.map(({ code }) => code)).toEqual([0xf, 0xf]);
    expect(r.read(spec.PRIQ_PROD)).toBe(0);
  });

  test('PRIQ_IRQ_CFG2.LO: the interrupt comes with Last instead', () => {
    const { r, dev } = rig();
    let edges = 0;
    r.machine.bus.onInterrupt(75, () => edges++);
    r.write(spec.PRIQ_IRQ_CFG2, spec.PRIQ_IRQ_CFG2.bit('LO'));
    r.write(spec.IRQ_CTRL, spec.IRQ_CTRL.bit('PRIQ_IRQEN'));
    ats(dev).send(message(1, false));
    expect(edges).toBe(0);
    ats(dev).send(message(1, true));
    expect(edges).toBe(1);
  });

  test('an endpoint whose pages never come asks a bounded number of times', () => {
    const { r, dev } = rig();
    for (let i = 0; i < 4; i++) ats(dev).send(message(300 + i, false));
    expect(dev.write(0x5000n, Uint8Array.of(7), { ats: true }).status).toBe('abort');
    expect(ats(dev).responses.length).toBe(9);
    expect(r.read(spec.PRIQ_PROD) >>> 0).toBe(0x80000004);
  });
});
