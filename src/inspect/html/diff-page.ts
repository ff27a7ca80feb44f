/** A diff as one page. */

import type { EntryDiff } from '../diff.ts';
import type { DumpDiff } from '../diff-dumps.ts';
import { hex } from '../record.ts';
import { html, type Markup, page, table } from './page.ts';

function entry(diff: EntryDiff): Markup {
  const rows = diff.changes.map(({ bits, name, from, to, fromMeaning = '', toMeaning = '' }) => [
    bits,
    name,
    from,
    to,
    fromMeaning,
    toMeaning,
  ]);
  const steps = diff.steps.map(({ writes }, i) => [
    `${i + 1}`,
    writes.map(({ qword, value }) => `qword ${qword} = ${value}`).join(', '),
  ]);
  return html`${diff.problems.map(({ message, rule }) => html`<p class="bad">${message} [${rule}]</p>`)}
${table(['bits', 'field', 'from', 'to', 'meant', 'means'], rows)}
<p>${diff.hitless ? 'Hitless: the entry stays valid throughout.' : 'Not hitless: the entry is invalid before, after, or in between.'}</p>
<ul>${diff.effects.map((effect) => html`<li>${effect}</li>`)}${diff.commands.map((command) => html`<li>${command}</li>`)}</ul>
${table(['step', 'stores, then invalidate and sync'], steps)}`;
}

function dumps(diff: DumpDiff): Markup {
  return html`<ul>${diff.added.map(({ sid, summary }) => html`<li>added: StreamID ${hex(sid)}: ${summary}</li>`)}
${diff.removed.map(({ sid, summary }) => html`<li>removed: StreamID ${hex(sid)}: ${summary}</li>`)}</ul>
${diff.changed.map(
  ({ sid, ste, cds }) => html`<details open><summary>StreamID ${hex(sid)} changed</summary>
${ste === undefined ? '' : html`<h2>STE</h2>${entry(ste)}`}
${cds.map(({ ssid, what, diff: cd }) => html`<h2>CD ${hex(ssid)} ${what}</h2>${cd === undefined ? '' : entry(cd)}`)}</details>
`,
)}`;
}

/** The page of a diff of entries or of dumps. */
export const diffPage = (diff: EntryDiff | DumpDiff): string =>
  'kind' in diff
    ? page(`${diff.kind.toUpperCase()} diff`, entry(diff))
    : page(`${diff.from} to ${diff.to}`, dumps(diff));
