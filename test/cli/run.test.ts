import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { POLICIES } from '../../src/testing/lab.ts';
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
  });

  test('what the steps of a process and of dirty tracking see can be expected, and that they succeeded', async () => {
    const machine = 'machine: { preset: mmu700, smmus: 1, vms: 1, processes: 1, pasidBits: 4, ats: true, pri: true }\n';
    const yaml = scenario(
      [
        'op: unbind, dev: d1',
        'op: svaBind, as: b0, dev: d1, mm: mm0, expect: PASID 1',
        'op: svaBind, as: b1, dev: d1, mm: mm0, expect: ok',
        'op: mmMap, mm: mm0, page: 9, to: 12, expect: ok',
        "op: dma, dev: d1, page: 9, pasid: 1, expect: 'mm0:12'",
        'op: pageRequest, dev: d1, page: 9, pasid: 1, expect: ResponseFailure',
        'op: hwptAlloc, as: s0, dev: d0, ioas: a0, dirty: true, expect: ok',
        'op: attach, dev: d0, to: s0, expect: ok',
        'op: dirtyTracking, hwpt: s0, on: true, expect: ok',
        'op: dma, dev: d0, page: 8, write: true, expect: ok',
        'op: dirtyRead, hwpt: s0, expect: dirty 8',
        'op: dirtyRead, hwpt: s0, expect: ok',
        'op: kexec, how: orderly, expect: nothing adopted',
        'op: kexec, how: orderly, expect: ok',
      ],
      machine,
    );
    expect(await runText(yaml)).toMatchObject({ code: 0, err: '' });
    // A refused page request is no success.
    const { out } = await runText(yaml.replace('ResponseFailure', 'ok'));
    expect(out).toContain('EXPECTATION: expected ok, got ResponseFailure');
  });

  test.each(POLICIES)('a process and a domain with dirty tracking take no VMID [lifecycle 2]: %s', async (policy) => {
    const yaml = scenario(
      [
        'op: unbind, dev: d1',
        'op: svaBind, as: b0, dev: d1, mm: mm0, expect: ok',
        "op: dma, dev: d1, page: 9, pasid: 1, expect: 'mm0:9'",
        'op: hwptAlloc, as: s0, dev: d0, ioas: a0, dirty: true, expect: ok',
        'op: attach, dev: d0, to: s0, expect: ok',
        "op: dma, dev: d0, page: 9, expect: 'vm0:9'",
        'op: vmids, owned: { smmu0: 0 }',
        'op: ste, dev: d0, fields: { Config: S1_TRANS, S2VMID: 0 }',
        'op: ste, dev: d1, fields: { Config: S1_TRANS, S2VMID: 0 }',
      ],
      'machine: { preset: mmu700, smmus: 1, vms: 1, processes: 1, pasidBits: 4, ats: true, pri: true }\n',
    );
    expect(await runText(yaml, '--policy', policy)).toMatchObject({ code: 0, err: '' });
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
    ['', 'the file: expected a mapping with "smmulab: 1" and "steps", got nothing'],
    ['\u001b[31m\u0000', 'the file: expected a mapping with "smmulab: 1" and "steps", got \'?[31m?\''],
    ['smmulab: 2\nsteps: []\n', 'smmulab: expected 1, got 2'],
    ['smmulab: 1\n', 'steps: '],
    ['smmulab: 1\nsteps: [{ op: fly }]\n', 'steps[0].op: expected one of ioasAlloc, map, '],
    ['smmulab: 1\nsteps: [{ op: fly }]\n', ", got 'fly'"],
    ['smmulab: 1\nsteps: [{ op: detach }]\n', 'steps[0].dev: expected string, got nothing'],
    [
      'smmulab: 1\nsteps: [{ op: dma, dev: d0, page: 1e23 }]\n',
      'steps[0].page: expected an integer, 8 to 15, got 1e+23',
    ],
    ['smmulab: 1\nsteps: [{ op: detach, dev: d0, expect: fine }]\n', 'steps[0].expect: expected an outcome: ok, '],
    ['smmulab: 1\nsteps: [{ op: events, smmu: smmu7, count: 0 }]\n', 'step 1: no SMMU smmu7; there are smmu0, smmu1'],
    [
      'smmulab: 1\nsteps: [{ op: ste, dev: d0, fields: { S2VMD: 1 } }]\n',
      'steps[0].fields.S2VMD: an STE has no field S2VMD',
    ],
    ['smmulab: 1\nsteps: [{ op: ste, dev: d0, fields: { Config: NEST } }]\n', "S1_TRANS, S2_TRANS, NESTED, got 'NEST'"],
    ['smmulab: 1\nsteps: []\n---\nsmmulab: 1\n', 'a second document begins at line 3, column 1; a scenario is one'],
    [`smmulab: 1\nsteps: ${'['.repeat(20_000)}\n`, 'nested too deeply at line 2'],
    ['smmulab: 1\nsteps: [{ op: detach, dev: d0, twice: true }]\n', 'steps[0]: Unrecognized key: "twice"'],
    ['smmulab: 1\nmachine: { smmus: 9 }\nsteps: []\n', 'machine.smmus: expected an integer, 1 to 8, got 9'],
    ['smmulab: 1\nmachine: { policy: mine }\nsteps: []\n', 'machine.policy: '],
    ['smmulab: 1\nsteps: [{ op: detach, dev: d9 }]\n', 'step 1: no device d9; there are d0 to d3'],
    [
      'smmulab: 1\nproperties: [nonsense]\nsteps: []\n',
      'properties: there is no property nonsense; there are s2vmid-owned, ',
    ],
    ['smmulab: 1\nsteps: []\nx: "\n', 'Missing closing "quote at line 4, column 1'],
    ['a: &x [1]\nb: *x\nsmmulab: 1\n', 'there is an alias (*name) in it; a scenario has none'],
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
