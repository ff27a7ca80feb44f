/** A dump as one page: problems, streams with filter, each entry's bits, VMID ownership, mappings, queues. */
import type { Inspection, TableDump } from '../inspect.ts';
import type { QueueDump } from '../queues.ts';
import { hex } from '../record.ts';
import { html, type Markup, page, table } from './page.ts';
import { recordMarkup } from './record.ts';

/** Bits of an STE and of a CD. */
const ENTRY_BITS = 512;

/** Streams whose bits are drawn; the table lists all. */
const DRAWN = 256;

const ROW_HEIGHT = 26;

/** VMIDs on the left, the streams that use them on the right. */
function vmidGraph({ vmids }: Inspection): Markup {
  const used = vmids.filter(({ sids }) => sids.length > 0);
  if (used.length === 0) return html`<p>No stream uses a VMID.</p>`;
  const sids = [...new Set(used.flatMap((use) => use.sids))].sort((a, b) => a - b);
  const height = Math.max(used.length, sids.length) * ROW_HEIGHT + 10;
  const y = (i: number, of: number): number => ((i + 0.5) * height) / of;
  const box = (x: number, at: number, text: string): Markup =>
    html`<rect x="${x}" y="${at - 10}" width="170" height="20" rx="4"/><text x="${x + 8}" y="${at + 4}">${text}</text>`;
  const label = used.map(({ vmid, sids }) => `VMID ${vmid}: StreamID ${sids.map(hex).join(', ')}`).join('; ');
  return html`<svg viewBox="0 0 640 ${height}" width="640" height="${height}" role="img" aria-label="${label}">
${used.flatMap((use, i) => use.sids.map((sid) => html`<path d="M180 ${y(i, used.length)} C 300 ${y(i, used.length)}, 320 ${y(sids.indexOf(sid), sids.length)}, 440 ${y(sids.indexOf(sid), sids.length)}"/>`))}
${used.map(({ vmid }, i) => box(10, y(i, used.length), `VMID ${vmid}`))}
${sids.map((sid, i) => box(440, y(i, sids.length), `StreamID ${hex(sid)}`))}
</svg>`;
}

function streamTable({ streams }: Inspection, id: string): Markup {
  const rows = streams.map(({ sid, ste, cds }) => [
    html`<a href="#${id}-${hex(sid)}">${hex(sid)}</a>`,
    ste.summary,
    (cds ?? []).map(({ ssid, cd }) => `${hex(ssid)}: ${cd.summary}`).join('; '),
    html`<span class="bad">${ste.problems.map(({ rule }) => rule).join(' ')}</span>`,
  ]);
  return html`<p><label>Filter: <input type="search" data-filter="${id}" placeholder="StreamID, Config, VMID, address"></label></p>
${table(['StreamID', 'STE', 'CDs', 'problems'], rows, id)}`;
}

function streamDetails({ streams }: Inspection, id: string): Markup {
  const drawn = streams.slice(0, DRAWN);
  const left = streams.length - drawn.length;
  return html`${drawn.map(
    ({
      sid,
      ste,
      cds,
      pa,
    }) => html`<details id="${id}-${hex(sid)}"><summary>StreamID ${hex(sid)}: ${ste.summary}</summary>
<p>STE at <code>${pa}</code></p>${recordMarkup(ste, ENTRY_BITS)}
${(cds ?? []).slice(0, DRAWN).map(({ ssid, pa, cd }) => html`<p>CD ${hex(ssid)} at <code>${pa}</code></p>${recordMarkup(cd, ENTRY_BITS)}`)}</details>
`,
  )}${left > 0 ? html`<p>and ${left} more streams, listed above</p>` : ''}`;
}

function mapping({ users, ttb0, ttb1, s2ttb, ranges, incomplete }: TableDump): Markup {
  const who = users.map(({ sid, ssid }) => (ssid === undefined ? hex(sid) : `${hex(sid)}/${hex(ssid)}`)).join(', ');
  const roots = [ttb0, ttb1, s2ttb].filter((one) => one !== undefined).join(', ');
  const rows = ranges.map(({ from, to, pa, permissions = '', attributes = '', fault = '' }) => [
    from,
    to,
    pa ?? fault,
    permissions,
    attributes,
  ]);
  return html`<details><summary>StreamID ${who}: tables at ${roots}, ${ranges.length} ranges${incomplete === true ? ', and more' : ''}</summary>
${table(['from', 'to', 'leads to', 'access', 'attributes'], rows)}</details>
`;
}

function queue(one: QueueDump): Markup {
  const rows = [
    ...one.recent.map((entry) => ['taken', entry] as const),
    ...one.waiting.map((entry) => ['waiting', entry] as const),
  ];
  return html`<details><summary>${one.name}: ${one.state}, PROD ${hex(one.prod)}, CONS ${hex(one.cons)}</summary>
${one.error === undefined ? '' : html`<p class="bad">${one.error}</p>`}
${table(
  ['', 'index', 'entry'],
  rows.map(([what, { index, record }]) => [what, hex(index), record.summary]),
)}</details>
`;
}

function section(one: Inspection, i: number): Markup {
  const id = `streams-${i}`;
  const { strtab, problems } = one;
  return html`<h2>${one.phase ?? 'Dump'}: ${strtab.format} Stream table at ${strtab.base}, ${one.streams.length} streams</h2>
${problems.length === 0 ? html`<p>No problem found.</p>` : html`<ul>${problems.map(({ message, rule, section }) => html`<li class="bad">${message} [${rule}, ${section}]</li>`)}</ul>`}
${streamTable(one, id)}
${streamDetails(one, id)}
<h2>VMIDs</h2>${vmidGraph(one)}
${one.tables.length === 0 ? '' : html`<h2>Mappings</h2>${one.tables.map(mapping)}`}
${one.queues.length === 0 ? '' : html`<h2>Queues</h2>${one.queues.map(queue)}`}`;
}

/** The page of one or several dumps. */
export const dumpPage = (dumps: readonly Inspection[]): string => page('smmulab dump', html`${dumps.map(section)}`);
