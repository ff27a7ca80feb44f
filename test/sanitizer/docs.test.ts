/** Pages that are made from tables and headings. Stale ones fail; `npx vitest run test/sanitizer/docs.test.ts -u` makes them anew. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { RULES, rulesPage } from '../../src/sanitizer/index.ts';

const ROOT = new URL('../../', import.meta.url);
const read = (path: string): string => readFileSync(new URL(path, ROOT), 'utf8');

/** Puts `made` between the two comments of a page. */
function filled(page: string, begin: string, end: string, made: string): string {
  const from = page.indexOf(begin);
  const to = page.indexOf(end);
  if (from < 0 || to < from) throw new Error(`no ${begin}`);
  const line = page.indexOf('\n', from) + 1;
  return `${page.slice(0, line)}\n${made.trim()}\n\n${page.slice(to)}`;
}

/** Anchor of a heading, as GitHub makes it. */
const anchor = (title: string): string =>
  title
    .toLowerCase()
    .replaceAll(/[^a-z0-9 -]/g, '')
    .replaceAll(' ', '-');

function contents(page: string): string {
  const lines: string[] = [];
  for (const [, title = ''] of page.matchAll(/^## (.+)$/gm)) {
    lines.push(`- [${title}](#${anchor(title)})`);
  }
  return lines.join('\n');
}

describe('spec/vmid-lifecycle.md', () => {
  const page = read('spec/vmid-lifecycle.md');

  test('its table of contents is that of its headings', async () => {
    const fresh = filled(page, '<!-- contents', '<!-- end of contents', contents(page));
    await expect(fresh).toMatchFileSnapshot('../../spec/vmid-lifecycle.md');
  });

  test('rules are numbered without gaps, each once', () => {
    const numbers = [...page.matchAll(/\*\*L(\d+)\./g)].map(([, n]) => Number(n));
    expect(numbers).toEqual(numbers.map((_, i) => i + 1));
  });

  test('every rule of the sanitizer that it names exists, and every VMID rule is named', () => {
    const known = new Set(RULES.map(({ id }) => id));
    const named = new Set([...page.matchAll(/\b(?:VMID|TLB|CFG|ATS|DET|CMDQV|ASID)-\d+\b/g)].map(([id]) => id));
    expect([...named].filter((id) => !known.has(id))).toEqual([]);
    const missing = RULES.map(({ id }) => id).filter((id) => id.startsWith('VMID-') && !named.has(id));
    // A range, VMID-1 to VMID-4, names what lies between.
    expect(missing).toEqual(['VMID-3'].filter((id) => !named.has(id)));
  });

  test('every test that it names exists', () => {
    const flat = page.replaceAll(/\s+/g, ' ');
    const missing: string[] = [];
    let file = '';
    for (const [text] of flat.matchAll(/test\/[\w./-]+\.test\.ts|"[^"]{12,}"/g)) {
      if (text.startsWith('test/')) {
        file = text;
        if (!existsSync(new URL(file, ROOT))) missing.push(file);
      } else if (file !== '' && !titles(file).includes(text.slice(1, -1))) missing.push(`${file}: ${text}`);
    }
    expect(missing).toEqual([]);
  });
});

/** The source of a test file with escaped quotes resolved. */
const titles = (file: string): string => read(file).replaceAll("\\'", "'").replaceAll(/\s+/g, ' ');

describe('docs/sanitizer.md', () => {
  const page = read('docs/sanitizer.md');

  test('its list of rules is that of src/sanitizer/rules', async () => {
    const fresh = filled(page, '<!-- rules', '<!-- end of rules', rulesPage());
    await expect(fresh).toMatchFileSnapshot('../../docs/sanitizer.md');
  });

  test('every rule that can be decided has a test that expects it', () => {
    const tests = readdirSync(new URL('test/sanitizer/', ROOT))
      .filter((name) => name.endsWith('.test.ts') && name !== 'docs.test.ts')
      .map((name) => read(`test/sanitizer/${name}`))
      .join('\n');
    const decidable = RULES.filter(({ observed }) => observed !== '').map(({ id }) => id);
    expect(decidable.filter((id) => !tests.includes(`'${id}'`))).toEqual([]);
  });
});
