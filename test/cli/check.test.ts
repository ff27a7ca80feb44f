import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { buildPackage, PACKAGE, type Ran, runNode } from './package.ts';
import { run, runJson } from './run.ts';

/** The worked examples of docs/testing.md. */
const EXAMPLES = ['invariant', 'state-machine', 'driver-under-test'].map((name) => `examples/testing/${name}.mjs`);

const scratch = (): string => mkdtempSync(join(tmpdir(), 'smmulab-check-'));

interface Output {
  readonly seed: number;
  readonly shard?: string;
  readonly properties: readonly {
    readonly name: string;
    readonly ok: boolean;
    readonly runs: number;
    readonly ops: number;
    readonly findings: readonly {
      readonly rule: string;
      readonly message: string;
      readonly case: { readonly steps: readonly object[] };
      readonly file: string;
    }[];
  }[];
  readonly coverage: Readonly<Record<string, Readonly<Record<string, number>>>>;
}

const check = async (...args: readonly string[]): Promise<{ code: number; value: Output }> => {
  const { code, value } = await runJson(['check', ...args]);
  return { code, value: value as Output };
};

describe('smmulab check on the shipped driver', () => {
  test('holds: exit 0, a summary, and what was exercised', async () => {
    const { code, out, err } = await run(['check', 's2vmid-owned', '--runs', '20', '--policy', 'viommu-only']);
    expect([code, err]).toEqual([0, '']);
    expect(out).toMatch(/^s2vmid-owned +20 +\d+ +holds$/m);
    expect(out).toMatch(/^policies +1\/1$/m);
    expect(out).toMatch(/^schedules +2\/2$/m);
    for (const line of out.split('\n')) expect(line.length).toBeLessThanOrEqual(100);
  });

  test('--json has the contract of issue 6, and the same seed gives the same bytes', async () => {
    const first = await run(['check', 's2vmid-owned', '--runs', '15', '--seed', '0x2a', '--json']);
    const second = await run(['check', 's2vmid-owned', '--runs', '15', '--seed', '42', '--json']);
    expect(first.out).toBe(second.out);
    const value = JSON.parse(first.out) as Output;
    expect(value.seed).toBe(42);
    expect(value.properties).toMatchObject([{ name: 's2vmid-owned', ok: true, runs: 15, findings: [] }]);
    expect(Object.values(value.coverage.policies ?? {}).reduce((sum, n) => sum + n, 0)).toBe(15);
  });

  test('run i depends on the seed and i alone: two shards make up the whole', async () => {
    const whole = await check('s2vmid-owned', '--runs', '20', '--max-ops', '20');
    const shards = [await check('s2vmid-owned', '--runs', '20', '--max-ops', '20', '--shard', '0/2')];
    shards.push(await check('s2vmid-owned', '--runs', '20', '--max-ops', '20', '--shard', '1/2'));
    const ops = shards.map(({ value }) => value.properties[0]?.ops ?? 0);
    expect(ops[0]).toBeGreaterThan(0);
    expect((ops[0] ?? 0) + (ops[1] ?? 0)).toBe(whole.value.properties[0]?.ops);
    expect(shards.map(({ value }) => value.shard)).toEqual(['0/2', '1/2']);
  });

  test('what is fixed is not drawn', async () => {
    const fixed = ['--policy', 'external', '--preset', 'qemuVirt', '--vmid-bits', '8', '--schedule', 'eager'];
    const { value } = await check('s2vmid-owned', '--runs', '8', ...fixed);
    expect(value.coverage).toMatchObject({
      policies: { external: 8 },
      presets: { qemuVirt: 8 },
      vmidBits: { 8: 8 },
      schedules: { eager: 8 },
    });
  });

  test.each([
    [['nonsense'], "'nonsense' is not a property"],
    [['--policy', 'mine'], "--policy: 'mine' is not one of at-attach, viommu-only, at-domain-alloc, external"],
    [['--runs', '0'], '--runs: 0 is out of range, legal 1..100000000'],
    [['--runs', '1e99'], "--runs: '1e99' is not a whole number"],
    [['--seed', 'x'], "--seed: 'x' is not a whole number"],
    [['--seed', '-1'], '--seed: -1 is out of range, legal 0..0xffffffff'],
    [['--out', 'no-such-directory'], '--out: no-such-directory: there is no such directory'],
    [['--out', 'package.json'], '--out: package.json: it is not a directory'],
    [['--shard', '2/2'], "--shard: '2/2' is not I/N"],
    [['--workers', '0'], '--workers: 0 is out of range'],
    [['--merge'], '--merge: no reports'],
    [['--merge', 'no-such-report.json'], 'no-such-report.json: there is no such file'],
    [['--merge', 'x.json', '--seed', '3'], '--seed and --merge'],
    [['--schedule', 'stepped'], "--schedule: 'stepped' is not one of eager, seeded"],
    [['--preset', 'smallVmid', '--vmid-bits', '16'], '--preset smallVmid has 8-bit VMIDs'],
    [['--driver', 'no-such-file.mjs'], '--driver: no-such-file.mjs: there is no such file'],
    [['--replay', 'no-such-file.yaml'], 'no-such-file.yaml: there is no such file'],
    [['--replay', 'x.yaml', '--seed', '3'], '--seed and --replay'],
    [['--replay', 'x.yaml', '--out', '.'], '--out and --replay'],
    [['--nope'], "unknown option '--nope'"],
  ])('bad usage %j: exit 2 and one line', async (args, message) => {
    const { code, out, err } = await run(['check', ...args]);
    expect([code, out]).toEqual([2, '']);
    expect(err).toContain(message);
    expect(err.trimEnd().split('\n')).toHaveLength(1);
  });
});

describe('smmulab check --driver: a driver from outside the package', () => {
  let smmulab: (args: readonly string[]) => Ran;
  beforeAll(() => {
    smmulab = buildPackage(['examples/my-driver.mjs', ...EXAMPLES]);
  }, 120_000);

  /** A module beside the example that changes what it makes. */
  const variant = (name: string, body: string): string => {
    const file = `examples/${name}.mjs`;
    writeFileSync(
      join(PACKAGE, file),
      `import make from './my-driver.mjs';\nexport default (kernel, firmware) => {\n  const ops = make(kernel, firmware);\n${body}\n  return ops;\n};\n`,
    );
    return file;
  };

  test('examples/my-driver.mjs passes, and vIOMMUs and nested attachments were made on it', () => {
    const { code, out, err } = smmulab(['check', '--driver', 'examples/my-driver.mjs', '--runs', '60', '--json']);
    expect([code, err]).toEqual([0, '']);
    const value = JSON.parse(out) as Output;
    expect(value.properties.map(({ ok }) => ok)).not.toContain(false);
    for (const op of ['viommuAlloc', 'vdeviceAlloc', 'nestedAlloc', 'attach'])
      expect(value.coverage.operations?.[op], op).toBeGreaterThan(10);
    expect(value.coverage.policies).toEqual({});
  });

  test('a driver that writes a VMID nobody allocated is found, told, saved, and replayed', () => {
    const file = variant(
      'wrong-vmid',
      `  const { domainAllocPagingFlags } = ops;
  ops.domainAllocPagingFlags = (dev, flags, data) => {
    const domain = domainAllocPagingFlags(dev, flags, data);
    const { ste } = domain;
    Object.defineProperty(domain, 'ste', { value: { ...ste, S2VMID: 9 } });
    return domain;
  };`,
    );
    const out = scratch();
    const found = smmulab(['check', 's2vmid-owned', '--driver', file, '--out', out]);
    expect([found.code, found.err]).toEqual([1, '']);
    expect(found.out).toMatch(
      /^s2vmid-owned broken at step \d of \d \(shrunk from \d+\): .*names\s+VMID\s+9,\s+which\s+is\s+free/m,
    );
    const [saved = ''] = readdirSync(out);
    expect(found.out).toContain(`replay: smmulab check --replay ${join(out, saved)} --driver ${file}`);
    expect(readFileSync(join(out, saved), 'utf8')).toMatch(/^smmulab: 1\n/);
    const again = smmulab(['check', '--replay', join(out, saved), '--driver', file]);
    expect([again.code, again.err]).toEqual([1, '']);
    expect(again.out).toMatch(/names\s+VMID\s+9,\s+which\s+is\s+free/);
    const right = smmulab(['check', '--replay', join(out, saved), '--driver', 'examples/my-driver.mjs']);
    expect([right.code, right.err]).toEqual([0, '']);
  });

  test('a driver that throws what no kernel returns is a finding, at its start and later', () => {
    const later = variant('throws', `  ops.viommuInit = () => { throw new TypeError('oops'); };`);
    const found = smmulab(['check', 's2vmid-owned', '--driver', later, '--out', scratch()]);
    expect(found.code).toBe(1);
    expect(found.out).toMatch(/viommuAlloc threw TypeError: oops/);
    const atOnce = variant('throws-at-once', `  throw new TypeError('oops');`);
    const first = smmulab(['check', 's2vmid-owned', '--driver', atOnce, '--out', scratch()]);
    expect(first.code).toBe(1);
    expect(first.out).toMatch(/broken at step 0 of 0.*: starting the\s+driver\s+threw\s+TypeError:\s+oops/);
  });

  test('a module that exports no driver is bad input', () => {
    writeFileSync(join(PACKAGE, 'examples/empty.mjs'), 'export const x = 1;\n');
    expect(smmulab(['check', '--driver', 'examples/empty.mjs'])).toEqual({
      code: 2,
      out: '',
      err: 'error: --driver: examples/empty.mjs has no default export\n',
    });
    writeFileSync(join(PACKAGE, 'examples/half.mjs'), "export default () => ({ name: 'half' });\n");
    const half = smmulab(['check', '--driver', 'examples/half.mjs']);
    expect([half.code, half.out]).toEqual([2, '']);
    expect(half.err).toMatch(/^error: examples\/half\.mjs: the IommuOps has no identityDomain, .*\n$/);
  });

  test('a factory that gives a promise: exit 2 and one line; one that throws: a finding, for run too', () => {
    const write = (name: string, text: string): string => {
      const file = `examples/${name}.mjs`;
      writeFileSync(join(PACKAGE, file), `export default ${text};\n`);
      return file;
    };
    const late = write('late', "async () => { throw new Error('later'); }");
    expect(smmulab(['check', 'vmid-free', '--driver', late, '--runs', '2'])).toEqual({
      code: 2,
      out: '',
      err: `error: ${late}: the default export gave a promise, expected an IommuOps object\n`,
    });
    const file = write('broken-start', "() => { throw new Error('no queue'); }");
    const scenario = join(scratch(), 'one.yaml');
    writeFileSync(scenario, 'smmulab: 1\nsteps: []\n');
    const { code, out, err } = smmulab(['run', scenario, '--driver', file]);
    expect([code, err]).toEqual([1, '']);
    expect(out).toContain('BROKEN crash: starting the driver threw Error: no queue');
    expect(smmulab(['check', '--replay', scenario, '--driver', file]).code).toBe(1);
  });

  test.each(EXAMPLES)('%s of docs/testing.md runs', (file) => {
    const { code, out, err } = runNode([file]);
    expect([code, err]).toEqual([0, '']);
    expect(out).toMatch(
      /^no-shared-vmid holds for 100 cases$|^at-attach: 30 sequences$|^forgetful: broken after \d+ runs$/m,
    );
    // The driver as shipped has no ATS: a device that answers no ATC_INV does not stop its queue.
    if (file.includes('driver')) expect(out).toMatch(/^myDriver: holds after 200 runs$/m);
  });

  test('what docs/testing.md shows is what the examples are', () => {
    const docs = readFileSync(new URL('../../docs/testing.md', import.meta.url), 'utf8');
    for (const file of EXAMPLES) {
      const text = readFileSync(join(PACKAGE, file), 'utf8');
      const code = text.slice(text.indexOf('*/') + 2).trim();
      expect(docs.includes(code), file).toBe(true);
    }
  });
});
