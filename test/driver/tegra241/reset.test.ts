import { describe, expect, test } from 'vitest';
import { CR0 } from '../../../spec/registers.ts';
import { tegra241Impl } from '../../../src/driver/index.ts';
import { type Bus, GRACE, SMALL_PARAM } from '../../../src/hw/index.ts';
import { CMDQV, Lab } from './lab.ts';

/** SMALL_PARAM: 8 VCMDQs, 4 VINTFs, 2 StreamID pairs; LVCMDQ l of VINTF v is VCMDQ 2v + l. */
function probe(lab: Lab): void {
  const [node] = lab.machine.firmware.smmus;
  if (node === undefined) throw new Error('no SMMU');
  lab.driver.probe(node);
}

/** VCMDQ deinit, step by step [8]; F is two CMD_SYNCs of the SMMU's own queue. */
const deinit = (v: number, l: number): string[] => [
  `L${v}.${l}.CONFIG=0x0`,
  'SYNC',
  'SYNC',
  `L${v}.${l}.PROD=0x0`,
  `L${v}.${l}.CONS=0x0`,
  `L${v}.${l}.BASE=0x0`,
  `L${v}.${l}.CONS_INDX_BASE=0x0`,
];

describe('host reset [tegra241-cmdqv 8, Linux tegra241_cmdqv_hw_reset]', () => {
  test('register writes and flushes, in order', () => {
    const lab = new Lab();
    probe(lab);
    const log = lab.take();
    // Everything before is the SMMU's own reset: CFGI_ALL, TLBI_EL2_ALL, TLBI_NSNH_ALL, each with a CMD_SYNC.
    expect(log.slice(0, 3)).toEqual(['SYNC', 'SYNC', 'SYNC']);
    const [base0, base1] = log
      .filter((line) => /BASE=0x[1-9a-f]/.test(line) && !line.includes('INDX'))
      .map((line) => line.split('=')[1]);
    expect(log.slice(3)).toEqual([
      // 1, 2: EN off and on, other fields kept.
      'CONFIG=0x20082',
      'CONFIG=0x20083',
      // 3: VINTF 20:15, LVCMDQ 7:1, ALLOCATED 0.
      'ALLOC0=0x0',
      'ALLOC1=0x2',
      'ALLOC2=0x8000',
      'ALLOC3=0x8002',
      'ALLOC4=0x10000',
      'ALLOC5=0x10002',
      'ALLOC6=0x18000',
      'ALLOC7=0x18002',
      // 4a: deinit, queues from the highest down.
      ...deinit(0, 1),
      'ALLOC1=0x2',
      ...deinit(0, 0),
      'ALLOC0=0x0',
      'V0.CONFIG=0x0',
      'V0.SID_MATCH0=0x0',
      'V0.SID_REPLACE0=0x0',
      'V0.SID_MATCH1=0x0',
      'V0.SID_REPLACE1=0x0',
      // 4b: HYP_OWN is bit 17, VMID 0.
      'V0.CONFIG=0x20000',
      'V0.CONFIG=0x20001',
      // 4c: map, then init.
      'ALLOC0=0x1',
      ...deinit(0, 0),
      `L0.0.BASE=${base0}`,
      'L0.0.CONFIG=0x1',
      'ALLOC1=0x3',
      ...deinit(0, 1),
      `L0.1.BASE=${base1}`,
      'L0.1.CONFIG=0x1',
    ]);
    expect(lab.violations).toEqual([]);
    // IDR1.CMDQS is 19; 4 KiB pages and order 10 cap a queue at 2^18 entries (linux-driver 1).
    for (const base of [base0, base1]) expect(Number(BigInt(base ?? 0) & 0x1fn)).toBe(18);
  });

  test('each EN is waited for; GERRORN and GERROR are read, GERRORN written only if they differ', () => {
    const lab = new Lab();
    lab.reads = true;
    probe(lab);
    const log = lab.take();
    const following = (line: string): string | undefined => log[log.indexOf(line) + 1];
    expect(following('CONFIG=0x20082')).toBe('STATUS?');
    expect(following('CONFIG=0x20083')).toBe('STATUS?');
    expect(following('V0.CONFIG=0x20001')).toBe('V0.STATUS?');
    expect(following('L0.1.CONFIG=0x1')).toBe('L0.1.STATUS?');
    // HYP_OWN is read back; the write without EN is not polled.
    expect(following('V0.CONFIG=0x20000')).toBe('V0.CONFIG=0x20001');
    expect(log[log.indexOf('V0.CONFIG=0x20001') + 2]).toBe('V0.CONFIG?');
    const gerror = log.flatMap((line, i) => (line.startsWith('L0.1.CONS_INDX_BASE') ? [log.slice(i + 1, i + 3)] : []));
    expect(gerror).toEqual([
      ['L0.1.GERRORN?', 'L0.1.GERROR?'],
      ['L0.1.GERRORN?', 'L0.1.GERROR?'],
    ]);
    expect(log.filter((line) => line.includes('GERRORN='))).toEqual([]);
  });

  test('an uncleared error of an earlier kernel is acknowledged', () => {
    const lab = new Lab();
    const { bus } = lab.machine;
    // VINTF0 up, VCMDQ 0 as its LVCMDQ 0, BASE refused: CMDQ_INIT_ERR.
    bus.writel(CMDQV + 0x1000n, 0x20000);
    bus.writel(CMDQV + 0x1000n, 0x20001);
    bus.writel(CMDQV + 0x200n, 1);
    bus.writel(CMDQV + 0x10008n, 1);
    lab.take();
    probe(lab);
    expect(lab.take()).toContain('L0.0.GERRORN=0x4');
    expect(lab.kernel.messages.map(({ text }) => text).join()).toContain('uncleared error');
  });

  test('in operation with the quirk: as Linux, which unmaps queues that run, lowest first', () => {
    const lab = new Lab({ settings: { quirks: ['cmdqv-reset-in-operation'] } }).boot();
    lab.driver.reset('smmu0');
    const log = lab.take();
    // Commands of the SMMU's own reset go to VINTF0, which is still enabled.
    const block = log.filter((line) => line !== 'SYNC' && !line.startsWith('L0.0.PROD'));
    expect(block[0]).toBe('CONFIG=0x20082');
    expect(new Set(lab.violations.map((line) => line.split(' ')[0]))).toEqual(new Set(['CMDQV-9']));
  });

  test('in operation: VINTF0 is switched off in order first; its queues start again at 0', () => {
    const lab = new Lab().boot();
    lab.driver.reset('smmu0');
    const log = lab.take();
    expect(lab.violations).toEqual([]);
    const block = log.filter((line) => line !== 'SYNC');
    expect(block.slice(block.indexOf('L0.1.CONFIG=0x0')).slice(0, 6)).toEqual([
      'L0.1.CONFIG=0x0',
      'L0.1.PROD=0x0',
      'L0.1.CONS=0x0',
      'L0.1.BASE=0x0',
      'L0.1.CONS_INDX_BASE=0x0',
      'ALLOC1=0x2',
    ]);
    expect(log.slice(log.indexOf('CONFIG=0x20082'), log.indexOf('CONFIG=0x20082') + 4)).toEqual([
      'CONFIG=0x20082',
      'CONFIG=0x20083',
      'ALLOC0=0x0',
      'ALLOC1=0x2',
    ]);
    lab.commands = [];
    const dev = lab.core.device('0000:00:01.0');
    if (dev) lab.driver.blockedDomain.ops.attachDev(lab.driver.blockedDomain, dev, lab.driver.identityDomain);
    expect(new Set(lab.commands.map(({ queue }) => queue))).toEqual(new Set(['vcmdq0.0']));
  });
});

describe('probe and failure [tegra241-cmdqv 8, linux-driver 1]', () => {
  const plain = (lab: Lab): void => {
    probe(lab);
    expect(lab.driver.smmu('smmu0').impl).toBeNull();
    expect(lab.kernel.messages.map(({ text }) => text).join()).toContain('Falling back to standard SMMU CMDQ');
    expect(lab.take().filter((line) => line !== 'SYNC' && !line.startsWith('CONFIG'))).toEqual([]);
  };

  test('without memory for its struct: plain SMMU', () => {
    const lab = new Lab();
    lab.kernel.failNth(1, 'alloc:cmdqv');
    plain(lab);
  });

  test('disable_cmdqv: EN is cleared, plain SMMU', () => {
    const lab = new Lab({ extras: { impl: tegra241Impl({ disable: true }) } });
    plain(lab);
    expect(lab.peek(0)).toBe(0x20082);
  });

  test('nothing answers at the address: plain SMMU', () => {
    const lab = new Lab({
      bus: (bus) => wrap(bus, { readl: (at) => (at >= CMDQV && at < CMDQV + 0x10_0000n ? 0xffffffff : bus.readl(at)) }),
    });
    plain(lab);
  });

  test('no CMDQV in the firmware: nothing is said', () => {
    const lab = new Lab();
    const [node] = lab.machine.firmware.smmus;
    if (node === undefined) throw new Error('no SMMU');
    const { cmdqv: _, ...without } = node;
    lab.driver.probe(without);
    expect(lab.driver.smmu('smmu0').impl).toBeNull();
    expect(lab.kernel.messages).toEqual([]);
  });

  test.each([
    ['CMDQV_STATUS', 1],
    ['CMDQV_STATUS', 2],
    // The first VINTF poll is that of the deinit, which only logs; the second is EN.
    ['VINTF_STATUS', 2],
    // Deinit of both queues, then deinit and EN of the first.
    ['VCMDQ_STATUS', 4],
  ])('an error of the block reset, %s poll %i, fails the probe: SMMU off, nothing leaks', (register, nth) => {
    const lab = new Lab();
    lab.kernel.failNth(nth, `poll:cmdqv:${register}`);
    expect(lab.errno(() => probe(lab))).toBe('ETIMEDOUT');
    expect(lab.machine.bus.readl(GRACE.smmu + BigInt(CR0.offset))).toBe(0);
    expect(lab.kernel.pagesUsed).toBe(0);
    lab.kernel.clearFailures();
    probe(lab);
    expect(lab.impl.vintf0?.enabled).toBe(true);
  });

  test('a queue that does not start: VINTF0 is switched off again before the error returns', () => {
    const lab = new Lab();
    lab.kernel.failNth(4, 'poll:cmdqv:VCMDQ_STATUS');
    lab.errno(() => probe(lab));
    const log = lab.take();
    expect(log.slice(log.lastIndexOf('L0.0.CONFIG=0x1') + 1)).toEqual([
      ...deinit(0, 1),
      'ALLOC1=0x2',
      ...deinit(0, 0),
      'ALLOC0=0x0',
      'V0.CONFIG=0x0',
      'V0.SID_MATCH0=0x0',
      'V0.SID_REPLACE0=0x0',
      'V0.SID_MATCH1=0x0',
      'V0.SID_REPLACE1=0x0',
    ]);
  });

  test('VINTF0 not enabled in time: at once, nothing undone', () => {
    const lab = new Lab();
    lab.kernel.failNth(2, 'poll:cmdqv:VINTF_STATUS');
    lab.errno(() => probe(lab));
    expect(lab.take().at(-1)).toBe('V0.CONFIG=0x20001');
  });

  test.each(['alloc:lvcmdqs', 'alloc:vcmdq', 'ids:vintf'])(
    'no memory for VINTF0 (%s): the probe fails, nothing leaks',
    (point) => {
      for (const nth of point === 'alloc:vcmdq' ? [1, 2, 3, 4] : [1]) {
        const lab = new Lab();
        lab.kernel.failNth(nth, point);
        const errno = lab.errno(() => probe(lab));
        // A ring that does not fit is made smaller (arm_smmu_init_one_queue): only the structs are indispensable.
        if (errno !== 'no error') {
          expect(errno).toBe('ENOMEM');
          expect(lab.kernel.pagesUsed).toBe(0);
        }
        if (nth === 1) expect(errno).toBe('ENOMEM');
      }
    },
  );

  test('remove: VINTF0 off while the SMMU can still flush, then CR0 = 0; memory is given back', () => {
    const lab = new Lab();
    probe(lab);
    lab.take();
    lab.driver.remove('smmu0');
    expect(lab.take()).toEqual([
      ...deinit(0, 1),
      'ALLOC1=0x2',
      ...deinit(0, 0),
      'ALLOC0=0x0',
      'V0.CONFIG=0x0',
      'V0.SID_MATCH0=0x0',
      'V0.SID_REPLACE0=0x0',
      'V0.SID_MATCH1=0x0',
      'V0.SID_REPLACE1=0x0',
    ]);
    expect(lab.kernel.pagesUsed).toBe(0);
    expect(lab.violations).toEqual([]);
  });
});

function wrap(bus: Bus, over: Partial<Bus>): Bus {
  return new Proxy(bus, {
    get: (target, name: keyof Bus) => {
      const value = over[name] ?? target[name];
      return typeof value === 'function' ? (value as (...args: unknown[]) => unknown).bind(target) : value;
    },
  });
}

describe('parameters other than the small ones', () => {
  test('host 7/6/4: 128 queues, two of each VINTF, allocated q = 2v + l', () => {
    const lab = new Lab({
      cmdqv: { param: { ...SMALL_PARAM, NUM_VCMDQ_LOG2: 7, NUM_VINTF_LOG2: 6, NUM_SID_PER_VM_LOG2: 4 } },
    });
    probe(lab);
    const log = lab.take();
    const alloc = log.slice(log.indexOf('ALLOC0=0x0'), log.indexOf('ALLOC0=0x0') + 128);
    expect(alloc.at(-1)).toBe('ALLOC127=0x1f8002');
    expect(alloc[65]).toBe('ALLOC65=0x100002');
    expect(log.filter((line) => line.startsWith('V0.SID_MATCH')).length).toBe(16);
  });

  test('one queue to a VINTF', () => {
    const lab = new Lab({ cmdqv: { param: { VER: 1, NUM_VCMDQ_LOG2: 2, NUM_VINTF_LOG2: 2, NUM_SID_PER_VM_LOG2: 0 } } });
    probe(lab);
    expect(lab.take().slice(5, 9)).toEqual(['ALLOC0=0x0', 'ALLOC1=0x8000', 'ALLOC2=0x10000', 'ALLOC3=0x18000']);
  });
});
