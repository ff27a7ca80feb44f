/** An access as one page: the walk as a diagram, the event's bits if it faults. */
import { EVENT_BYTES } from '../../../spec/events.ts';
import { hex } from '../record.ts';
import type { TranslationResult, TranslationStep } from '../translate.ts';
import { html, type Markup, page } from './page.ts';
import { recordMarkup } from './record.ts';

const step = ({ what, level, stage, address, words, meaning }: TranslationStep): Markup => {
  const title = level === undefined ? what : `stage ${stage} level ${level}`;
  return html`<li tabindex="0"><strong>${title}</strong> at <code>${address}</code><br>${meaning}<br><code class="dim">${words.join(' ')}</code></li>
`;
};

/** The page of one access. */
export function translationPage(result: TranslationResult): string {
  const who = `StreamID ${hex(result.sid)}${result.ssid === undefined ? '' : `, SubstreamID ${hex(result.ssid)}`}`;
  const end =
    result.outcome === 'ok'
      ? html`<strong>PA <code>${result.pa ?? ''}</code></strong>, ${result.permissions ?? ''}, ${result.attributes ?? ''}`
      : html`<strong class="bad">${result.event?.name ?? result.outcome}</strong>`;
  return page(
    `${who}: ${result.access} of ${result.iova}`,
    html`<ol class="walk">${result.steps.map(step)}<li tabindex="0">${end}<br>${result.reason}</li></ol>
${result.event === undefined ? '' : html`<h2>Event record${result.event.recorded ? '' : ', not recorded'}</h2>${recordMarkup(result.event, EVENT_BYTES * 8)}`}`,
  );
}
