/** The verbs that look into images and logs, on the recorded data. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterAll, describe, expect, test } from 'vitest';
import { recorded, MANIFEST as TRUTH } from '../inspect/recorded.ts';
import { run, runJson } from './run.ts';

const scratch = mkdtempSync(join(tmpdir(), 'smmulab-inspect-'));
afterAll(() => rmSync(scratch, { recursive: true }));

const MANIFEST = recorded('manifest.json');
const DMESG = recorded('dmesg-smmu.txt');

async function refused(argv: readonly string[], message: RegExp, stdin?: string): Promise<void> {
  const { code, out, err } = await run(argv, stdin);
  expect({ code, out }).toEqual({ code: 2, out: '' });
  expect(err).toMatch(/^error: (?!internal)[^\n]+\n$/);
  expect(err).toMatch(message);
}

const narrow = (out: string): void => {
  for (const line of out.split('\n')) expect(line.length, line).toBeLessThanOrEqual(100);
};

interface Translation {
  outcome: string;
  pa?: string;
  event?: { name: string; words: string[]; recorded: boolean };
  steps: { what: string; level?: number; address: string }[];
}

const translate = async (...argv: string[]) => {
  const { code, value } = await runJson(['translate', MANIFEST, ...argv]);
  return { code, value: value as Translation };
};

describe('smmulab translate', () => {
  test('a mapped IOVA of the recording: every level, ending in the page', async () => {
    const { code, value } = await translate('--phase', 'vfio-mapped', '--sid', '0x28', '--iova', '0x10123', '--write');
    expect(code).toBe(0);
    expect(value).toMatchObject({ outcome: 'ok', pa: '0x42ab2123', size: '0x1000', permissions: 'rwx', asid: 12 });
    expect(value.steps.map(({ what, level }) => (level === undefined ? what : `${what}${level}`))).toEqual([
      'L1STD',
      'STE',
      'CD',
      'S10',
      'S11',
      'S12',
      'S13',
    ]);
  });

  // The kernel log of the recording holds the event words of these accesses, from QEMU's SMMU.
  test.each([
    ['--iova', '0x14000', ['0x2800000010', '0x20000000000', '0x14000', '0x0']],
    ['--iova', '0x20010', ['0x2800000013', '0x20000000000', '0x20010', '0x0']],
    ['--iova', '0x1000000000000', ['0x2800000010', '0x20000000000', '0x1000000000000', '0x0']],
  ])('a recorded fault gives the event that was recorded: %s %s', async (option, iova, words) => {
    const { code, value } = await translate('--phase', 'vfio-faulted', '--sid', '0x28', option, iova, '--write');
    expect(code).toBe(1);
    expect(value.event).toMatchObject({ words, recorded: true });
    const shown = await run([
      'translate',
      MANIFEST,
      '--phase',
      'vfio-faulted',
      '--sid',
      '0x28',
      option,
      iova,
      '--write',
    ]);
    expect(shown.out).toContain(`event record: ${words.join(' ')}`);
    narrow(shown.out);
  });

  test('a bypass STE leads to the same address, an abort STE nowhere and without an event', async () => {
    const bypass = await translate('--phase', 'retyped-identity', '--sid', '0x18', '--iova', '0x12345678');
    expect(bypass.value).toMatchObject({ outcome: 'ok', pa: '0x12345678' });
    const abort = await translate('--phase', 'vfio-blocked', '--sid', '0x28', '--iova', '0x1000');
    expect(abort.code).toBe(1);
    expect(abort.value).toMatchObject({ outcome: 'abort' });
    expect(abort.value.event).toBeUndefined();
  });

  test('--range merges what is mapped alike', async () => {
    const { value } = await runJson([
      'translate',
      MANIFEST,
      '--phase',
      'vfio-mapped',
      '--sid',
      '0x28',
      '--iova',
      '0',
      '--range',
      '0x24000',
    ]);
    expect(value).toMatchObject({
      complete: true,
      ranges: [
        { from: '0x0', to: '0xffff', fault: 'F_TRANSLATION' },
        { from: '0x10000', to: '0x10fff', pa: '0x42ab2000' },
        { from: '0x11000', pa: '0x42aa3000' },
        { from: '0x12000', pa: '0x42adb000' },
        { from: '0x13000', to: '0x13fff', pa: '0x42a9d000' },
        { from: '0x14000', to: '0x1ffff', fault: 'F_TRANSLATION' },
        { from: '0x20000', pa: '0x42aa0000', permissions: 'r-x' },
        { from: '0x21000', to: '0x21fff', pa: '0x42ab1000' },
        { from: '0x22000', to: '0x23fff', fault: 'F_TRANSLATION' },
      ],
    });
  });

  test('memory that no image has is said so, and is no event of hardware', async () => {
    const [phase] = TRUTH.phases;
    const registers = Object.fromEntries(
      Object.entries(phase?.registers ?? {}).map(([name, { value }]) => [name, value]),
    );
    const dumps = phase?.dumps
      .filter(({ what }) => what.startsWith('strtab'))
      .map((one) => ({ ...one, file: recorded(one.file) }));
    const path = join(scratch, 'short.json');
    writeFileSync(path, JSON.stringify({ registers, dumps }));
    const { code, value } = await runJson(['translate', path, '--sid', '8', '--iova', '0']);
    expect(code).toBe(1);
    expect(value).toMatchObject({
      outcome: 'missing',
      reason: 'the images do not hold 0x44afd000, which the SMMU reads next',
    });
  });

  test('usage', async () => {
    await refused(['translate', MANIFEST], /translate needs --sid and --iova/);
    await refused(['translate', MANIFEST, '--sid', '1', '--iova', '0x10000000000000000'], /--iova: .* out of range/);
    await refused(['translate', '--sid', '1', '--iova', '0'], /no image/);
  });
});

describe('smmulab dump: other sources', () => {
  const [phase] = TRUTH.phases;
  const file = (what: string) => phase?.dumps.find((one) => one.what === what) ?? { gpa: '0x0', file: '', length: 0 };
  const bytes = (what: string) => gunzipSync(readFileSync(recorded(file(what).file)));
  const registers = Object.entries(phase?.registers ?? {}).flatMap(([name, { value }]) => [
    '--reg',
    `${name}=${value}`,
  ]);
  const l1 = bytes('strtab-l1');
  const l2 = bytes('strtab-l2');
  const sids = (value: unknown) =>
    (value as { streams: { sid: number }[] }).streams.map(({ sid }) => sid).filter((sid) => sid < 0x100);
  const expected = [0, 8, 0x10, 0x18, 0x20, 0x28, 0x30, 0x38, 0x40];
  const dump = async (...argv: string[]) => sids((await runJson(['dump', ...argv, '--brief'])).value);

  test('raw images with their addresses', async () => {
    const [a, b] = [join(scratch, 'l1.bin'), join(scratch, 'l2.bin')];
    writeFileSync(a, l1);
    writeFileSync(b, l2);
    expect(await dump(`${a}@${file('strtab-l1').gpa}`, `${b}@${file('strtab-l2').gpa}`, ...registers)).toEqual(
      expected,
    );
    await refused(['dump', a, ...registers], /a raw image needs its address/);
  });

  test('a directory that holds manifest.json', async () => {
    const { value } = await runJson(['dump', recorded('.'), '--phase', 'probed', '--brief']);
    expect(sids(value)).toEqual(expected);
  });

  /** An ELF core file with a segment an image. */
  function elf(segments: readonly { at: bigint; data: Uint8Array }[]): Buffer {
    const headers = Buffer.alloc(64 + 56 * segments.length);
    headers.write('\u007fELF\u0002\u0001\u0001', 'latin1');
    headers.writeUInt16LE(4, 16);
    headers.writeUInt16LE(183, 18);
    headers.writeBigUInt64LE(64n, 0x20);
    headers.writeUInt16LE(56, 0x36);
    headers.writeUInt16LE(segments.length, 0x38);
    let offset = headers.length;
    for (const [i, { at, data }] of segments.entries()) {
      const entry = 64 + 56 * i;
      headers.writeUInt32LE(1, entry);
      headers.writeBigUInt64LE(BigInt(offset), entry + 8);
      headers.writeBigUInt64LE(at, entry + 0x18);
      headers.writeBigUInt64LE(BigInt(data.length), entry + 0x20);
      offset += data.length;
    }
    return Buffer.concat([headers, ...segments.map(({ data }) => data)]);
  }

  test('an ELF core file: PT_LOAD segments by physical address', async () => {
    const path = join(scratch, 'vmcore');
    const core = elf([
      { at: BigInt(file('strtab-l1').gpa), data: l1 },
      { at: BigInt(file('strtab-l2').gpa), data: l2 },
    ]);
    writeFileSync(path, core);
    expect(await dump(path, ...registers)).toEqual(expected);
    writeFileSync(path, core.subarray(0, core.length - 1));
    await refused(['dump', path, ...registers], /segment 1 ends at byte \d+ of \d+: the dump is cut short/);
    writeFileSync(path, Buffer.from('KDUMP   \u0000\u0000\u0000\u0000'));
    await refused(['dump', path, ...registers], /a compressed kdump is not read: .*makedumpfile -E/);
  });

  const rows = (data: Uint8Array, line: (at: bigint, bytes: Buffer) => string, base: bigint): string =>
    Array.from({ length: data.length / 16 }, (_, i) =>
      line(base + BigInt(16 * i), Buffer.from(data.subarray(16 * i, 16 * i + 16))),
    ).join('\n');
  const hex = (value: bigint | number, digits: number) => value.toString(16).padStart(digits, '0');
  const ascii = (data: Buffer) =>
    [...data].map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.')).join('');
  const pairs = (data: Buffer) => Array.from({ length: 8 }, (_, i) => data.toString('hex', 2 * i, 2 * i + 2)).join(' ');
  const qwords = (data: Buffer) => [data.readBigUInt64LE(0), data.readBigUInt64LE(8)];

  test.each([
    ['xxd', (at: bigint, data: Buffer) => `${hex(at, 8)}: ${pairs(data)}  ${ascii(data)}`],
    [
      'hexdump -C',
      (at: bigint, data: Buffer) =>
        `${hex(at, 8)}  ${[...data]
          .map((b) => hex(b, 2))
          .join(' ')
          .replace(/(.{23}) /, '$1  ')}  |${ascii(data)}|`,
    ],
    [
      'hexdump',
      (at: bigint, data: Buffer) =>
        `${hex(at, 7)} ${Array.from({ length: 8 }, (_, i) => hex(data.readUInt16LE(2 * i), 4)).join(' ')}`,
    ],
    [
      'crash rd',
      (at: bigint, data: Buffer) =>
        `${hex(at, 12)}:  ${qwords(data)
          .map((q) => hex(q, 16))
          .join(' ')}   ${ascii(data)}`,
    ],
    [
      'QEMU xp /gx',
      (at: bigint, data: Buffer) =>
        `${hex(at, 16)}: ${qwords(data)
          .map((q) => `0x${hex(q, 16)}`)
          .join(' ')}`,
    ],
    [
      'QEMU xp /wx',
      (at: bigint, data: Buffer) =>
        `${hex(at, 16)}: ${Array.from({ length: 4 }, (_, i) => `0x${hex(data.readUInt32LE(4 * i), 8)}`).join(' ')}`,
    ],
    [
      'gdb x/gx',
      (at: bigint, data: Buffer) =>
        `0x${hex(at, 8)}:\t${qwords(data)
          .map((q) => `0x${hex(q, 16)}`)
          .join('\t')}`,
    ],
  ])('text of %s', async (name, line) => {
    const path = join(scratch, `${name.replace(/\W/g, '-')}.txt`);
    writeFileSync(
      path,
      `${rows(l1, line, BigInt(file('strtab-l1').gpa))}\n${rows(l2, line, BigInt(file('strtab-l2').gpa))}\n`,
    );
    expect(await dump(path, ...registers)).toEqual(expected);
  });

  test('text with * for lines that repeat, counted from --base', async () => {
    const path = join(scratch, 'star.txt');
    const line = '00000000: 0000 0000 0000 0000 0000 0000 0000 0000  ................';
    // STE 2 of a linear table: valid, bypass. STEs 0 and 1 are zero.
    writeFileSync(
      path,
      `${line}\n*\n00000080: 0900 0000 0000 0000 0000 0000 0000 0000  ................\n00000090: 0000 0000 0000 0000 0000 0000 0000 0000  ................\n*\n00000100\n`,
    );
    const linear = [
      '--reg',
      'STRTAB_BASE=0x80000000',
      '--reg',
      'STRTAB_BASE_CFG=2',
      '--preset',
      'qemuVirt',
      '--base',
      '0x80000000',
    ];
    const { code, value } = await runJson(['dump', path, ...linear]);
    expect(code).toBe(0);
    expect(sids(value)).toEqual([2]);
  });

  test('registers guessed from text, an MMIO trace, and a dump of the pages', async () => {
    const [a, b] = [join(scratch, 'l1.bin'), join(scratch, 'l2.bin')];
    const images = [`${a}@${file('strtab-l1').gpa}`, `${b}@${file('strtab-l2').gpa}`];
    const named = join(scratch, 'names.txt');
    writeFileSync(
      named,
      Object.entries(phase?.registers ?? {})
        .map(([name, { value }]) => `SMMU_${name}: ${value}`)
        .join('\n'),
    );
    expect(await dump(...images, '--registers', named)).toEqual(expected);
    const trace = join(scratch, 'mmio.txt');
    writeFileSync(trace, gunzipSync(readFileSync(recorded('mmio.txt.gz'))));
    expect(await dump(...images, '--registers', trace)).toEqual(expected);
    const pages = join(scratch, 'pages.txt');
    const page = Buffer.alloc(0x200);
    for (const { offset, bits, value } of Object.values(phase?.registers ?? {})) {
      const at = Number(offset);
      if (at < page.length)
        bits === 64 ? page.writeBigUInt64LE(BigInt(value), at) : page.writeUInt32LE(Number(value), at);
    }
    writeFileSync(
      pages,
      rows(
        page,
        (at, data) =>
          `${hex(at, 16)}: ${Array.from({ length: 4 }, (_, i) => `0x${hex(data.readUInt32LE(4 * i), 8)}`).join(' ')}`,
        0xc000000n,
      ),
    );
    expect(await dump(...images, '--registers', pages)).toEqual(expected);
    await refused(['dump', ...images, '--reg', 'NOSUCH=1'], /'NOSUCH=1' names no register/);
    await refused(['dump', ...images, '--registers', DMESG], /no register in it/);
  });

  test('filters by StreamID and Config', async () => {
    const filter = async (...argv: string[]) => {
      const { value } = await runJson(['dump', MANIFEST, '--phase', 'retyped-identity', '--brief', ...argv]);
      return (value as { streams: { sid: number }[] }).streams.map(({ sid }) => sid);
    };
    expect(await filter('--config', 'BYPASS')).toEqual([0x18]);
    expect(await filter('--sid', '0x100')).toEqual([0x100]);
    expect(await filter('--vmid', '3')).toEqual([]);
    await refused(['dump', MANIFEST, '--config', 'NOTHING'], /--config: 'NOTHING' is not one of ABORT/);
  });

  test('the mapped ranges are those of the recorded tables', async () => {
    const { value } = await runJson(['dump', MANIFEST, '--phase', 'drivers', '--sid', '8']);
    expect((value as { tables: { ranges: unknown[] }[] }).tables[0]?.ranges).toMatchObject([
      { from: '0xffffc000', to: '0xffffcfff', pa: '0x44691000', permissions: 'rwx' },
      { from: '0xffffd000', to: '0xffffdfff', pa: '0x4469f000' },
      {
        from: '0xfffff000',
        to: '0xffffffff',
        pa: '0x8090000',
        permissions: 'rw-',
        attributes: 'DEVICE_nGnRE, outer shareable',
      },
    ]);
  });

  test('queues: what waits when CONS stands before PROD, with wrap and error', async () => {
    const queue = async (cons: string) => {
      const { value } = await runJson([
        'dump',
        MANIFEST,
        '--phase',
        'drivers',
        '--brief',
        '--reg',
        `CMDQ_CONS=${cons}`,
      ]);
      return (
        value as {
          queues: {
            name: string;
            state: string;
            used: number;
            error?: string;
            waiting: { record: { name: string } }[];
          }[];
        }
      ).queues[0];
    };
    const waiting = await queue('0xe7');
    expect(waiting).toMatchObject({ name: 'cmdq', state: 'used', used: 2 });
    expect(waiting?.waiting.at(-1)?.record.name).toBe('CMD_SYNC');
    expect(await queue('0x10000e9')).toMatchObject({ state: 'empty', error: expect.stringContaining('CERROR_ILL') });
    expect(await queue('0x100e9')).toMatchObject({ state: 'full', used: 0x10000 });
    expect(await queue('0xea')).toMatchObject({ state: 'inconsistent', waiting: [] });
  });

  test('--html writes one page without network', async () => {
    const path = join(scratch, 'dump.html');
    expect((await run(['dump', MANIFEST, '--html', path])).code).toBe(0);
    const page = readFileSync(path, 'utf8');
    expect(page).toContain('<!doctype html>');
    expect(page).toContain('data-filter="streams-0"');
    expect(page).not.toMatch(/\b(src|href)="(?!#)/);
    await refused(['dump', MANIFEST, '--html', join(scratch, 'no/such/dir.html')], /no such file/);
  });
});

describe('smmulab diff', () => {
  const S1 = '0x44a1700b,0xd6,0,0,0,0,0,0';
  const json = async (...argv: string[]) => {
    const { code, value } = await runJson(['diff', ...argv]);
    return {
      code,
      value: value as {
        changes: { name: string }[];
        hitless: boolean;
        syncs: number;
        steps: { writes: { qword: number; value: string }[]; sync: boolean }[];
      },
    };
  };

  test('an unchanged entry: no step, hitless [issue 4 item 2]', async () => {
    expect(await json('ste', S1, S1)).toMatchObject({
      code: 0,
      value: { changes: [], hitless: true, syncs: 0, steps: [] },
    });
  });

  test('fields changed, with bits and values', async () => {
    const { value } = await json('ste', S1, '0x44a1700b,0xd4,0,0,0,0,0,0');
    expect(value.changes).toMatchObject([{ name: 'S1DSS', bits: '65:64', from: '0x2', to: '0x0' }]);
  });

  // Linux's own test of its writer: abort, bypass and stage 1 in one critical word each (arm-smmu-v3-test.c).
  test('abort to bypass is one store; bypass to a CD table needs the unused words first', async () => {
    const abort = '1,0,0,0,0,0,0,0';
    const bypass = '9,0x100000000000,0,0,0,0,0,0';
    expect((await json('ste', abort, bypass)).value).toMatchObject({
      hitless: true,
      syncs: 2,
      steps: [
        { writes: [{ qword: 1, value: '0x100000000000' }], sync: true },
        { writes: [{ qword: 0, value: '0x9' }], sync: true },
      ],
    });
    const { value } = await json('ste', abort, S1);
    expect(value).toMatchObject({ hitless: true, syncs: 2 });
  });

  test('two critical words: V goes to 0 in between', async () => {
    const { code, value } = await json(
      'ste',
      '0x44a1700b,0xd6,0,0,0,0,0,0',
      '0x44a1800b,0xd7,0,0,0,0,0,0',
      '--preset',
      'linuxNesting',
    );
    expect(code).toBe(0);
    // S1DSS is used by Linux's masks, whatever S1CDMax says.
    expect(value).toMatchObject({ hitless: false, syncs: 3 });
    expect(value.steps[0]?.writes).toEqual([{ qword: 0, value: '0x0' }]);
    expect(value.steps.at(-1)?.writes).toEqual([{ qword: 0, value: '0x44a1800b' }]);
  });

  test('V=0 at either end is not hitless', async () => {
    expect((await json('ste', '0,0,0,0,0,0,0,0', S1)).value.hitless).toBe(false);
    expect((await json('cd', '0x80000000,0,0,0,0,0,0,0', '0,0,0,0,0,0,0,0')).value.hitless).toBe(false);
  });

  test('exit code 1 only if TO is illegal, with --plan too', async () => {
    const illegal = '0xb,0x40000000,0,0,0,0,0,0';
    expect((await json('ste', S1, illegal, '--preset', 'linuxNesting')).code).toBe(1);
    expect((await run(['diff', 'ste', S1, illegal, '--plan', '--preset', 'linuxNesting'])).code).toBe(1);
    expect((await run(['diff', 'ste', illegal, S1, '--plan', '--preset', 'linuxNesting'])).code).toBe(0);
  });

  test('FROM and TO as bytes and as files', async () => {
    const blob = '0b70a14400000000d600000000000000'.padEnd(128, '0');
    const path = join(scratch, 'ste.txt');
    writeFileSync(path, S1.replaceAll(',', '\n'));
    expect((await json('ste', blob, `@${path}`)).value.changes).toEqual([]);
    await refused(['diff', 'ste', S1], /takes FROM and TO/);
    await refused(['diff', 'ste', S1, 'zz'], /'zz' is not hexadecimal/);
    await refused(['diff', 'ste', S1, `${S1},${S1}`], /TO is 2 records/);
  });

  test('two phases: what the driver changed', async () => {
    const { code, value } = await runJson(['diff', MANIFEST, '--from', 'unbound', '--to', 'retyped-identity']);
    expect(code).toBe(1);
    expect(value).toMatchObject({
      added: [],
      removed: [],
      changed: [
        {
          sid: 0x18,
          ste: {
            changes: expect.arrayContaining([expect.objectContaining({ name: 'Config', from: '0x5', to: '0x4' })]),
          },
        },
      ],
    });
    expect((await run(['diff', MANIFEST, '--from', 'end', '--to', 'end'])).code).toBe(0);
    const shown = await run(['diff', MANIFEST, '--from', 'unbound', '--to', 'retyped-identity']);
    expect(shown.out).toContain('* StreamID 0x18');
    narrow(shown.out);
  });
});

describe('smmulab encode', () => {
  // The encoded examples of the command and event reference tables.
  test.each([
    [['cmd', 'CMD_CFGI_STE', 'StreamID=0x108', 'Leaf=1'], '0x10800000003 0x1'],
    [['cmd', 'CFGI_ALL'], '0x4 0x1f'],
    [
      [
        'cmd',
        'CMD_TLBI_NH_VA',
        'VMID=0x12',
        'ASID=0x34',
        'Address=0x400012345000',
        'Leaf=1',
        'TG=4KB',
        'TTL=3',
        'SCALE=4',
      ],
      '0x34001200400012 0x400012345701',
    ],
    [['cmd', 'SYNC', 'CS=SIG_SEV', 'MSH=ISH', 'MSIAttr=0xF'], '0xfc02046 0x0'],
    [['event', 'C_BAD_STE', 'StreamID=0x108'], '0x10800000004 0x0 0x0 0x0'],
    [
      ['ste', 'V=1', 'Config=S1_TRANS', 'S1ContextPtr=0x44a17000', 'S1DSS=2', 'S1CIR=1', 'S1COR=1', 'S1CSH=ISH'],
      '0x44a1700b 0xd6 0x0 0x0 0x0 0x0 0x0 0x0',
    ],
  ])('%j', async (argv, words) => {
    expect(await run(['encode', ...argv])).toEqual({ code: 0, out: `${words}\n`, err: '' });
  });

  test('what is illegal is exit code 1 and named', async () => {
    const { code, out, err } = await run(['encode', 'cmd', 'SYNC', 'CS=3']);
    expect({ code, out }).toEqual({ code: 1, out: '0x3046 0x0\n' });
    expect(err).toContain('CMD-SYNC-CS');
  });

  test('bad input', async () => {
    await refused(['encode', 'ste', 'S1ContextPtr=0x41'], /0x41 is not a multiple of 64/);
    await refused(['encode', 'ste', 'S2VMID=0x10000'], /S2VMID has 16 bits/);
    await refused(['encode', 'ste', 'Config=SOMETHING'], /'SOMETHING' is not a number, or one of ABORT/);
    await refused(['encode', 'ste', 'NoSuch=1'], /STE has no field NoSuch/);
    await refused(['encode', 'cmd'], /which command/);
    await refused(['encode', 'cmd', 'NOTHING'], /no command NOTHING/);
    await refused(['encode', 'pte1', 'Valid=1'], /'pte1' is not a kind of record/);
  });
});

describe('smmulab explain', () => {
  test('the recorded kernel log: every event, counted by kind and stream; other lines untouched', async () => {
    const text = readFileSync(DMESG, 'latin1');
    const { code, out } = await run(['explain', DMESG]);
    expect(code).toBe(1);
    expect(
      out
        .split('\n')
        .filter((line) => !line.startsWith('    | '))
        .join('\n')
        .startsWith(text),
    ).toBe(true);
    const { value } = await runJson(['explain', '-'], text);
    const events = text.match(/event: F_\w+/g)?.length;
    const { findings, summary } = value as { findings: { name: string }[]; summary: { name: string; count: number }[] };
    expect(findings).toHaveLength(events ?? -1);
    expect(summary.reduce((sum, { count }) => sum + count, 0)).toBe(events);
    expect(summary).toContainEqual(
      expect.objectContaining({
        name: 'F_PERMISSION',
        sid: 0x28,
        access: 'write',
        count: 2,
        from: '0x20010',
        to: '0x20014',
      }),
    );
  });

  test('a log without anything to explain passes through, exit code 0', async () => {
    expect(await run(['explain', '-'], 'hello\nSYSTEM started\n')).toEqual({
      code: 0,
      out: 'hello\nSYSTEM started\n',
      err: '',
    });
    await refused(['explain', join(scratch, 'no.log')], /no\.log: there is no such file/);
  });
});
