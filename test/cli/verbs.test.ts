import { readdirSync } from 'node:fs';
import { expect, test } from 'vitest';
import { VERBS } from '../../src/cli/cli.ts';

const files = readdirSync(new URL('../../src/cli/verbs/', import.meta.url));

test('every verb that exists can be asked for, and its help says its name and its exit codes', async () => {
  expect(
    Object.keys(VERBS)
      .map((name) => `${name}.ts`)
      .sort(),
  ).toEqual(files.filter((name) => name.endsWith('.ts')).sort());
  for (const [name, { load }] of Object.entries(VERBS)) {
    const { help } = await load();
    expect(help).toContain(`smmulab ${name}`);
    expect(help).toContain('Exit code');
    for (const line of help.split('\n')) expect(line.length).toBeLessThanOrEqual(100);
  }
});
