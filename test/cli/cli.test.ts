import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { recorded } from '../inspect/recorded.ts';
import { buildExecutable } from './built.ts';
import { run, runJson } from './run.ts';

const scratch = mkdtempSync(join(tmpdir(), 'smmulab-cli-'));
afterAll(() => rmSync(scratch, { recursive: true }));

const STE = ['0x44a1700b', '0xd6', '0', '0', '0', '0', '0', '0'];
const MANIFEST = recorded('manifest.json');

/** Bad input: exit code 2, nothing on standard output, one line on standard error. */
async function refused(argv: readonly string[], message: RegExp, stdin?: string): Promise<void> {
  const { code, out, err } = await run(argv, stdin);
  expect({ code, out }).toEqual({ code: 2, out: '' });
  expect(err).toMatch(/^error: [^\n]+\n$/);
  expect(err).toMatch(message);
}

describe('the command line', () => {
  test('--help lists the verbs, VERB --help explains one', async () => {
    const { code, out } = await run(['--help']);
    expect(code).toBe(0);
    for (const verb of ['decode', 'encode', 'dump', 'translate', 'diff', 'explain', 'spec']) {
      expect(out).toContain(`  ${verb}`);
      const help = await run([verb, '--help']);
      expect(help.code).toBe(0);
      expect(help.out).toContain(`smmulab ${verb}`);
      expect(help.out).toContain('Exit code');
      for (const line of help.out.split('\n')) expect(line.length).toBeLessThanOrEqual(100);
    }
  });

  test('--version', async () => {
    expect(await run(['--version'])).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^smmulab \d+\.\d+\.\d+\n$/),
    });
  });

  test('an unknown verb or option, and a missing one, are usage errors', async () => {
    await refused([], /no verb/);
    await refused(['frobnicate'], /'frobnicate' is not a verb; one of .*decode/);
    await refused(['--frobnicate'], /unknown option '--frobnicate'/);
    await refused(['decode', 'ste', ...STE, '--frobnicate'], /unknown option '--frobnicate'/);
    await refused(['decode', 'ste', ...STE, '--width'], /option '--width.* needs a value/);
    await refused(['constructor'], /'constructor' is not a verb/);
  });
});

describe('smmulab decode', () => {
  test('text: a line a field, at most 100 columns, exit code 0', async () => {
    const { code, out, err } = await run(['decode', 'ste', ...STE, '--preset', 'qemuVirt']);
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(out).toMatch(/^STE: S1_TRANS, CD at 0x44a17000\n/);
    expect(out).toMatch(/\n {2}3:1 +Config +0x5 +S1_TRANS/);
    for (const line of out.split('\n')) expect(line.length).toBeLessThanOrEqual(100);
  });

  test('--json: one object, or a list for several records', async () => {
    expect((await runJson(['decode', 'cmd', '0x46', '0'])).value).toMatchObject({
      kind: 'cmd',
      valid: true,
      problems: [],
    });
    expect((await runJson(['decode', 'cmd', '46,0,30,0'])).value).toMatchObject([
      { name: 'CMD_SYNC' },
      { name: 'CMD_TLBI_NSNH_ALL' },
    ]);
  });

  test('a problem is exit code 1, and the rule is printed', async () => {
    const { code, out } = await run(['decode', 'cmd', '0xff', '0']);
    expect(code).toBe(1);
    expect(out).toContain('ILLEGAL: Opcode (bits 7:0) = 0xff is reserved [CMD-OPCODE, 4.1.3]');
    expect((await runJson(['decode', 'cmd', '0xff', '0'])).code).toBe(1);
  });

  test('- is standard input, @FILE a file', async () => {
    const path = join(scratch, 'ste.txt');
    writeFileSync(path, STE.join('\n'));
    const wanted = await runJson(['decode', 'ste', ...STE]);
    expect(await runJson(['decode', 'ste', '-'], STE.join(' '))).toEqual(wanted);
    expect(await runJson(['decode', 'ste', `@${path}`])).toEqual(wanted);
    await refused(['decode', 'ste', '@/nowhere/at/all'], /\/nowhere\/at\/all: there is no such file/);
  });

  test('--idr0 .. --idr5 say which SMMU: without stage 2 an S2 STE is illegal [5.2.2]', async () => {
    const nested = ['0x44a1700f', '0xd6', '0x0008056800000003', '0x80000000', '0', '0', '0', '0'];
    const idrs = ['--idr0', '0xd44101a', '--idr1', '0x2730010', '--idr3', '0x1404', '--idr5', '0x74'];
    const rules = async (argv: string[]) => (await runJson(argv)).value as { problems: { rule: string }[] };
    expect((await rules(['decode', 'ste', ...nested, ...idrs])).problems).toContainEqual(
      expect.objectContaining({ rule: 'STE-S3' }),
    );
    await refused(['decode', 'ste', ...STE, '--idr0', '0x1'], /all of --idr0, --idr1, --idr3 and --idr5/);
    await refused(['decode', 'ste', ...STE, '--preset', 'nonsense'], /'nonsense' is not one of minimal, qemuVirt/);
  });

  test('options take C literals', async () => {
    const level = async (text: string) =>
      ((await runJson(['decode', 'pte1', '0x3', '--level', text])).value as { name: string }).name;
    expect(await level('0x2')).toBe('S1 4k L2 table');
    expect(await level('02')).toBe('S1 4k L2 table');
    expect(await level('2u')).toBe('S1 4k L2 table');
    expect(
      ((await runJson(['decode', 'pte1', '3', '--level', '-1', '--ds'])).value as { name: string }).name,
    ).toContain('L-1');
    await refused(['decode', 'pte1', '3', '--level', '4'], /--level: 4 is out of range, legal -1\.\.3/);
    await refused(['decode', 'pte1', '3', '--level', 'two'], /--level: 'two' is not a whole number/);
    await refused(['decode', 'pte1', '3', '--granule', '8k'], /--granule: '8k' is not one of 4k, 16k, 64k/);
    await refused(['decode', 'pte1', '3', '--granule', '64k', '--level', '0'], /64k granule has no level 0/);
  });

  test('--width 32', async () => {
    expect((await runJson(['decode', 'cmd', '46', '0', '0', '0', '--width', '32'])).value).toMatchObject({
      name: 'CMD_SYNC',
    });
  });

  test('bad words are named', async () => {
    await refused(
      ['decode', 'ste', '0x1', 'zz', '0', '0', '0', '0', '0', '0'],
      /word 2, column 5: 'zz' is not hexadecimal \(an STE is/,
    );
    await refused(['decode', 'ste', '1', '2'], /2 words of 64 bits: too few/);
    await refused(['decode', 'cmd', '0b70a14400000000000000000000000'], /odd number of digits/);
    await refused(['decode', 'cmd', '0x10000000000000000', '0'], /does not fit 64 bits/);
    await refused(['decode'], /no kind of record; it is one of ste, cd/);
    await refused(['decode', 'sty', '0'], /'sty' is not a kind of record/);
  });

  test('any arguments give 0, 1, or one line and 2', async () => {
    const argument = fc.oneof(
      fc.constantFrom(
        'ste',
        'cd',
        'cmd',
        'event',
        'pte1',
        'pte2',
        'l1std',
        '--json',
        '--all',
        '--level',
        '--preset',
        '0x1',
        '0',
        '-',
        '@',
      ),
      fc.string({ maxLength: 20 }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(argument, { maxLength: 12 }), async (argv) => {
        const { code, err } = await run(['decode', ...argv], '46 0');
        expect([0, 1, 2]).toContain(code);
        expect(err).toMatch(code === 2 ? /^error: (?!internal)[^\n]*\n$/ : /^$/);
      }),
      { numRuns: 300 },
    );
  });
});

describe('smmulab dump', () => {
  test('text: the last phase unless told, at most 100 columns', async () => {
    const { code, out } = await run(['dump', MANIFEST]);
    expect(code).toBe(0);
    expect(out).toMatch(/^end: two-level \(split 8\) Stream table at 0x44aa3000/);
    expect(out).toMatch(/\n {2}0x308 +S1_TRANS +0x44ad6000/);
    for (const line of out.split('\n')) expect(line.length).toBeLessThanOrEqual(100);
    expect((await run(['dump', MANIFEST, '--phase', 'probed'])).out).toMatch(/^probed: /);
  });

  test('--json: a list of 16 phases; --phase gives that one', async () => {
    const { code, value } = await runJson(['dump', MANIFEST]);
    expect(code).toBe(0);
    expect((value as { phase: string }[]).map(({ phase }) => phase)).toHaveLength(16);
    expect((await runJson(['dump', MANIFEST, '--phase', 'unbound'])).value).toMatchObject({
      phase: 'unbound',
      strtab: { format: 'two-level', base: '0x44aa3000', log2size: 16, split: 8 },
      streams: expect.arrayContaining([
        expect.objectContaining({ sid: 0, ste: expect.objectContaining({ kind: 'ste' }) }),
      ]),
      problems: [],
    });
  });

  test('bad input', async () => {
    await refused(['dump'], /no image: a manifest/);
    await refused(['dump', MANIFEST, '--phase', 'nonsense'], /'nonsense' is not one of probed, drivers/);
    await refused(['dump', join(scratch, 'gone.json')], /gone\.json: there is no such file/);
  });

  test('a Stream table outside the images is exit code 1, a manifest without phases one object', async () => {
    const registers = {
      STRTAB_BASE: '0x1000',
      STRTAB_BASE_CFG: 1,
      IDR0: 0xd44101a,
      IDR1: '0x2730010',
      IDR3: '0x1404',
      IDR5: '0x74',
    };
    const path = join(scratch, 'manifest.json');
    writeFileSync(path, JSON.stringify({ registers, dumps: [] }));
    const { code, value } = await runJson(['dump', path]);
    expect(code).toBe(1);
    expect(value).toMatchObject({
      strtab: { format: 'linear', base: '0x1000', log2size: 1 },
      streams: [],
      problems: [{ rule: 'DUMP-STRTAB' }],
    });
    expect((await run(['dump', path])).out).toContain(
      'problem: the STEs of StreamID 0x0 to 0x1 at 0x1000 are in no image',
    );
  });
});

test('smmulab spec prints a table and its JSON, and names what resembles a wrong name', async () => {
  expect((await run(['spec', 'STE'])).out).toContain('S1ContextPtr');
  expect((await runJson(['spec', 'STE'])).value).toMatchObject({ name: 'STE', bytes: 64 });
  await refused(['spec', 'no-such-layout-at-all'], /no layout is called/);
});

describe('the built executable', () => {
  let executable = '';
  beforeAll(() => {
    executable = buildExecutable();
  }, 120_000);
  const smmulab = (argv: readonly string[], input = '') =>
    spawnSync(process.execPath, [executable, ...argv], { input, encoding: 'utf8' });

  test('decodes standard input and sets the exit code', () => {
    expect(smmulab(['decode', 'cmd', '-'], 'ff 0')).toMatchObject({ status: 1, stderr: '' });
    expect(smmulab(['decode', 'cmd', 'zz', '0'])).toMatchObject({ status: 2, stdout: '' });
  });

  test('no colour into a pipe', () => {
    expect(smmulab(['decode', 'cmd', '46', '0']).stdout).not.toContain('\u001b');
  });

  test('a closed pipe is no error', () => {
    const { stderr } = spawnSync('sh', ['-c', `"${process.execPath}" "${executable}" spec --json | head -c 1`], {
      encoding: 'utf8',
    });
    expect(stderr).toBe('');
  });
});
