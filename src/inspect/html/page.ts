/** One self-contained page: no network, light and dark, printable, usable with the keyboard. */

/** Text that is HTML already. Made by {@link html}; everything else is escaped. */
export class Markup {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

const ESCAPES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

/** Text with the characters escaped that HTML gives a meaning. */
export const escapeHtml = (text: string): string =>
  text.replace(/[&<>"']/g, (character) => ESCAPES[character] ?? character);

type Part = Markup | string | number | readonly Part[];

const render = (part: Part): string => {
  if (part instanceof Markup) return part.text;
  if (typeof part === 'object') return part.map(render).join('');
  return escapeHtml(String(part));
};

/** HTML from a template: what is put in is escaped, unless it is {@link Markup}. */
export function html(strings: TemplateStringsArray, ...parts: readonly Part[]): Markup {
  return new Markup(strings.map((text, i) => text + (i < parts.length ? render(parts[i] ?? '') : '')).join(''));
}

/** Markup that is one piece of trusted text of this package. */
const raw = (text: string): Markup => new Markup(text);

const STYLE = `
:root { color-scheme: light dark; --fg: #1b1b1f; --bg: #fff; --line: #b5b8c0; --soft: #f1f2f5; --bad: #b3001b; --hot: #0b57d0;
  --set: #d5e4ff; }
@media (prefers-color-scheme: dark) { :root { --fg: #e4e4e9; --bg: #17181c; --line: #555a66; --soft: #23252b; --bad: #ff7b8a;
  --hot: #8ab4ff; --set: #24375c; } }
body { font: 14px/1.45 system-ui, sans-serif; color: var(--fg); background: var(--bg); margin: 2rem auto; max-width: 78rem;
  padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; }
th, td { text-align: left; padding: .2rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { background: var(--soft); position: sticky; top: 0; }
code, td.code { font-family: ui-monospace, monospace; font-size: .92em; }
.bad { color: var(--bad); } .dim { opacity: .6; } .changed { outline: 2px solid var(--hot); outline-offset: -2px; }
.bits { display: grid; grid-template-columns: repeat(32, minmax(0, 1fr)); margin: .1rem 0; font: 10px ui-monospace, monospace; }
.bits > span { border: 1px solid var(--line); margin-left: -1px; padding: .15rem .1rem; overflow: hidden; text-align: center;
  white-space: nowrap; text-overflow: ellipsis; }
.bits > .set { background: var(--set); } .bits > .word { border: 0; text-align: left; opacity: .7; grid-column: 1 / -1; }
:focus-visible { outline: 3px solid var(--hot); }
details { margin: .3rem 0; border: 1px solid var(--line); border-radius: .3rem; padding: .3rem .6rem; }
summary { cursor: pointer; } input { font: inherit; padding: .25rem .5rem; width: 24rem; max-width: 100%; }
ol.walk { list-style: none; padding: 0; } ol.walk > li { border: 1px solid var(--line); border-radius: .4rem; padding: .4rem .7rem; }
ol.walk > li + li { margin-top: 1.5rem; position: relative; }
ol.walk > li + li::before { content: "\\2193"; position: absolute; top: -1.45rem; left: 1.2rem; font-size: 1.1rem; }
svg text { fill: var(--fg); font: 12px ui-monospace, monospace; } svg path { fill: none; stroke: var(--hot); stroke-width: 1.5; }
svg rect { fill: var(--soft); stroke: var(--line); }
@media print { body { margin: 0; max-width: none; } input { display: none; } details { break-inside: avoid; } th { position: static; } }
`;

/** Hides rows of a table that do not hold what is typed; opens what a link leads to, and everything before printing. */
const SCRIPT = `
for (const input of document.querySelectorAll('input[data-filter]')) {
  const rows = document.querySelectorAll('#' + input.dataset.filter + ' tbody tr');
  input.addEventListener('input', () => {
    const wanted = input.value.trim().toLowerCase();
    for (const row of rows) row.hidden = wanted !== '' && !row.textContent.toLowerCase().includes(wanted);
  });
}
const follow = () => {
  const target = location.hash === '' ? null : document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) { target.open = true; target.scrollIntoView(); }
};
addEventListener('hashchange', follow);
follow();
addEventListener('beforeprint', () => { for (const one of document.querySelectorAll('details')) one.open = true; });
`;

/** The whole page. */
export function page(title: string, body: Markup): string {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>${title}</title>
<style>${raw(STYLE)}</style>
</head>
<body>
<main>
<h1>${title}</h1>
${body}
</main>
<script>${raw(SCRIPT)}</script>
</body>
</html>
`.text;
}

/** A table. Cells are text or markup; `id` lets a filter find it. */
export function table(head: readonly string[], rows: readonly (readonly (string | Markup)[])[], id?: string): Markup {
  const open = id === undefined ? html`<table>` : html`<table id="${id}">`;
  return html`${open}<thead><tr>${head.map((name) => html`<th scope="col">${name}</th>`)}</tr></thead>
<tbody>${rows.map(
    (cells) => html`<tr>${cells.map((cell) => html`<td class="code">${cell}</td>`)}</tr>
`,
  )}</tbody></table>`;
}
