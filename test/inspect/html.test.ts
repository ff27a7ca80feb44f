/** Pages: self-contained and well formed; in a real browser where one is installed. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { diffEntries } from '../../src/inspect/diff.ts';
import { capsFromRegisters } from '../../src/inspect/dump.ts';
import { diffPage } from '../../src/inspect/html/diff-page.ts';
import { dumpPage } from '../../src/inspect/html/dump-page.ts';
import { escapeHtml, html } from '../../src/inspect/html/page.ts';
import { translationPage } from '../../src/inspect/html/translation-page.ts';
import { inspect } from '../../src/inspect/inspect.ts';
import { openSource, snapshotOf } from '../../src/inspect/source.ts';
import { translateOnImage } from '../../src/inspect/translate.ts';
import { parseWords } from '../../src/inspect/words.ts';
import { recorded } from './recorded.ts';

const snapshot = snapshotOf(openSource([recorded('manifest.json')], new Map()), 'vfio-faulted');
const caps = capsFromRegisters(snapshot.registers);
if (caps === undefined) throw new Error('the recording names no SMMU');
const memory = snapshot.memory();
const ste = (text: string) => {
  const [record] = parseWords(text, { bytes: 64, what: 'an STE' });
  if (record === undefined) throw new Error('no record');
  return record;
};

const PAGES = {
  dump: dumpPage([inspect(memory, snapshot.registers)]),
  walk: translationPage(translateOnImage(memory, snapshot.registers, caps, { sid: 0x28, iova: 0x20010n, write: true })),
  diff: diffPage(diffEntries('ste', ste('0xb,0xd6,0,0,0,0,0,0'), ste('0x9,0,0,0,0,0,0,0'), caps)),
};

/** Elements that have no end tag. */
const VOID = new Set(['meta', 'input', 'br', 'rect', 'path']);

/** Start tags without their end, in order. */
function unclosed(page: string): string[] {
  const open: string[] = [];
  for (const [, slash, name = '', self] of page
    .replace(/<(style|script)>[\s\S]*?<\/\1>/g, '')
    .matchAll(/<(\/?)([a-z0-9]+)[^<>]*?(\/?)>/g)) {
    if (self === '/' || VOID.has(name)) continue;
    if (slash === '') open.push(name);
    else if (open.at(-1) === name) open.pop();
    else return [...open, `/${name}`];
  }
  return open;
}

describe.each(Object.entries(PAGES))('the page of a %s', (_, page) => {
  test('is one file without network', () => {
    expect(page.startsWith('<!doctype html>')).toBe(true);
    expect(page).not.toMatch(/\b(?:src|href)="(?!#)/);
    expect(page).not.toMatch(/https?:\/\//);
    expect(page).toContain("default-src 'none'");
  });

  test('closes what it opens', () => {
    expect(unclosed(page)).toEqual([]);
  });

  test('knows light and dark, print, and the keyboard', () => {
    expect(page).toContain('prefers-color-scheme: dark');
    expect(page).toContain('@media print');
    expect(page).toContain(':focus-visible');
  });
});

test('drawings carry tooltips, tables their filter, VMIDs their graph', () => {
  expect(PAGES.dump).toMatch(
    /<span class="set" style="grid-column: span 3" tabindex="0" title="Config \(3:1\) = 0x5: S1_TRANS/,
  );
  expect(PAGES.dump).toContain('data-filter="streams-0"');
  expect(PAGES.walk).toContain('stage 1 level 3');
});

test('a link to a stream opens what it leads to', () => {
  expect(PAGES.dump).toContain('<a href="#streams-0-0x28">');
  expect(PAGES.dump).toContain('<details id="streams-0-0x28">');
  expect(PAGES.dump).toContain("addEventListener('hashchange'");
});

test('text from outside is escaped', () => {
  expect(escapeHtml('<a href="x">&\'')).toBe('&lt;a href=&quot;x&quot;&gt;&amp;&#39;');
  expect(html`<p>${'<script>'}</p>`.text).toBe('<p>&lt;script&gt;</p>');
});

const BROWSERS = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome'];
const browser = BROWSERS.find((name) => spawnSync(name, ['--version']).status === 0);
if (browser === undefined)
  console.warn(`NOT TESTED: no browser (${BROWSERS.join(', ')}) is installed; pages are checked as text only`);

describe.runIf(browser !== undefined)('in a real browser', () => {
  let directory = '';
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'smmulab-html-'));
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  test.each(Object.entries(PAGES))('the page of a %s is shown, and its script runs without an error', (name, page) => {
    const path = join(directory, `${name}.html`);
    const probe =
      '<script>document.title = "probe " + document.querySelectorAll("table, ol.walk").length;</script></body>';
    writeFileSync(path, page.replace('</body>', probe));
    const argv = [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--enable-logging=stderr',
      '--dump-dom',
      `file://${path}`,
    ];
    const { stdout, stderr } = spawnSync(browser ?? '', argv, { encoding: 'utf8', maxBuffer: 1 << 28 });
    expect(stdout).toMatch(/<title>probe [1-9]/);
    expect(stderr).not.toMatch(/Uncaught|Refused to/);
  });
});
