import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { run } from './run.ts';

const DIRECTORY = new URL('../../examples/scenarios/', import.meta.url);
const FILES = readdirSync(DIRECTORY).sort();
const text = (name: string): string => readFileSync(new URL(name, DIRECTORY), 'utf8');

/** Runs a scenario given as text. */
const runText = (yaml: string, ...args: readonly string[]) => run(['run', '-', ...args], yaml);

const scenario = (steps: readonly string[], head = ''): string =>
  `smmulab: 1\n${head}steps:\n${steps.map((step) => `  - { ${step} }\n`).join('')}`;

describe('the scenarios that come with the package', () => {
  test('there are a dozen', () => {
    expect(FILES.length).toBeGreaterThanOrEqual(12);
  });

  for (const file of FILES)
    test(`${file}: as expected, eager and under three seeds`, async () => {
      const eager = await runText(text(file));
      expect(eager).toMatchObject({ code: 0, err: '' });
      expect(eager.out).toMatch(/all as expected\n$/);
      for (const line of eager.out.split('\n')) expect(line.length).toBeLessThanOrEqual(100);
      for (const seed of ['1', '2', '3'])
        expect(await runText(text(file), '--schedule', 'seeded', '--seed', seed)).toMatchObject({ code: 0, err: '' });
    });
});

describe('smmulab run', () => {
  const S2 = 'op: hwptAlloc, as: s0, dev: d0, ioas: a0, nestParent: true';

  test('a failed expectation is a finding: exit 1, told at its step', async () => {
    const { code, out } = await runText(scenario([`${S2}, expect: EBUSY`, 'op: vmids, owned: { smmu0: 3 }']));
    expect(code).toBe(1);
    expect(out).toContain('EXPECTATION: expected EBUSY, got ok');
    expect(out).toContain('EXPECTATION: 0 VMIDs of smmu0 are owned, expected 3');
    expect(out).toMatch(/\n2 findings\n$/);
  });

  test('--json: steps with what was said, findings with rule and message', async () => {
    const yaml = scenario([
      S2,
      'op: viommuAlloc, as: v0, dev: d0, parent: s0',
      'op: dma, dev: d0, page: 8, expect: ok',
    ]);
    const { code, out } = await runText(yaml, '--json');
    expect(code).toBe(1);
    expect(JSON.parse(out)).toMatchObject({
      ok: false,
      steps: [
        { step: 1, text: 's0 = hwptAlloc(d0, a0, nest parent)' },
        { step: 2, said: ['viommu:1 takes VMID 1 of smmu0'] },
        { step: 3, failed: 'expected ok, got abort' },
        { step: 4, text: 'close' },
      ],
      findings: [{ step: 3, rule: 'expectation', message: 'expected ok, got abort' }],
    });
  });

  test('expectations by policy, and a policy from the command line', async () => {
    const yaml = scenario([
      S2,
      'op: viommuAlloc, as: v0, dev: d2, parent: s0, expect: { at-attach: ok, at-domain-alloc: EINVAL }',
    ]);
    expect((await runText(yaml)).code).toBe(0);
    expect((await runText(yaml, '--policy', 'at-domain-alloc')).code).toBe(0);
    const wrong = yaml.replace('at-domain-alloc: EINVAL', 'at-domain-alloc: ok');
    expect((await runText(wrong, '--policy', 'at-domain-alloc')).code).toBe(1);
  });

  test('what an STE holds, by field and name of value', async () => {
    const steps = [S2, 'op: attach, dev: d0, to: s0'];
    const ste = (fields: string): string => `op: ste, dev: d0, fields: { ${fields} }`;
    const good = scenario([
      ...steps,
      ste('Config: S2_TRANS, S2VMID: 1'),
      'op: ste, dev: d1, fields: { Config: ABORT }',
    ]);
    expect((await runText(good)).code).toBe(0);
    const bad = await runText(scenario([...steps, ste('Config: NESTED')]));
    expect(bad.code).toBe(1);
    expect(bad.out).toContain('STE.Config of d0 is S2_TRANS, expected NESTED');
    const { err } = await runText(scenario([...steps, ste('S2VMD: 1')]));
    expect(err).toContain('an STE has no field S2VMD');
  });

  test('quirks of the file reach the driver: with l1std-no-cfgi a new L1STD is not announced (5.1.1)', async () => {
    const withQuirks = (quirks: string): string =>
      scenario([S2], `machine: { policy: at-domain-alloc, streamTable: two-level, quirks: ${quirks} }\n`);
    expect((await runText(withQuirks('[]'))).code).toBe(0);
    for (const quirks of ['linux-7.2', '[l1std-no-cfgi]']) {
      const { code, out } = await runText(withQuirks(quirks));
      expect([quirks, code]).toEqual([quirks, 1]);
      expect(out).toContain('BROKEN CFG-6: CFG-6: smmu0: the L1STD of StreamID 0x8 became active');
      expect(out).toMatch(/\n1 finding\n$/);
    }
  });

  test.each([
    ['', 'the file: '],
    ['smmulab: 2\nsteps: []\n', 'smmulab: '],
    ['smmulab: 1\n', 'steps: '],
    ['smmulab: 1\nsteps: [{ op: fly }]\n', 'steps[0].op: '],
    ['smmulab: 1\nsteps: [{ op: detach }]\n', 'steps[0].dev: '],
    ['smmulab: 1\nsteps: [{ op: detach, dev: d0, twice: true }]\n', 'steps[0]: Unrecognized key: "twice"'],
    ['smmulab: 1\nmachine: { smmus: 9 }\nsteps: []\n', 'machine.smmus: '],
    ['smmulab: 1\nmachine: { policy: mine }\nsteps: []\n', 'machine.policy: '],
    ['smmulab: 1\nsteps: [{ op: detach, dev: d9 }]\n', 'step 1: no device d9; there are d0 to d3'],
    ['smmulab: 1\nproperties: [nonsense]\nsteps: []\n', 'properties: there is no property nonsense'],
    ['smmulab: 1\nsteps: []\nx: "\n', 'Missing closing "quote at line 4, column 1'],
    ['a: &x [1]\nb: *x\nsmmulab: 1\n', 'Alias'],
  ])('bad file %j: exit 2 and one line', async (yaml, message) => {
    const { code, out, err } = await runText(yaml);
    expect([code, out]).toEqual([2, '']);
    expect(err.startsWith('error: -: ')).toBe(true);
    expect(err).toContain(message);
    expect(err.trimEnd().split('\n')).toHaveLength(1);
  });

  test.each([
    [['run'], 'no scenario file'],
    [['run', 'a', 'b'], "'b' is one argument too many"],
    [['run', '-', '--seed', '1', '--schedule', 'eager'], '--seed: an eager schedule has no seed'],
    [['run', 'missing.yaml'], 'missing.yaml: there is no such file'],
  ])('bad usage %j', async (args, message) => {
    const { code, err } = await run(args, scenario([S2]));
    expect(code).toBe(2);
    expect(err).toContain(message);
  });
});
