import { existsSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import * as smmulab from '../src/index.ts';

const at = (path: string): URL => new URL(`../${path}`, import.meta.url);
const { exports } = JSON.parse(readFileSync(at('package.json'), 'utf8')) as {
  exports: Readonly<Record<string, { readonly default: string }>>;
};

test('every package export is a source file, and the main entry has them all by name', () => {
  for (const [name, { default: built }] of Object.entries(exports)) {
    expect(existsSync(at(built.replace('./dist/', '').replace(/js$/, 'ts'))), name).toBe(true);
    if (name !== '.') expect(Object.keys(smmulab)).toContain(name.slice(2));
  }
});

test('the lock file and the sources name no registry host', () => {
  expect(readFileSync(at('package-lock.json'), 'utf8')).not.toMatch(/"resolved"/);
});
