import type { GuaranteeResult } from './guarantee.js';
import { chartsOf } from './report-charts.js';
import { html, renderPage } from './report-page.js';
import type { Result } from './simulation.js';
import type { Span } from './simulator.config.js';
import { CAUSES, FATES } from './verdict-text.js';

/** The page about a run: complete in itself, it loads nothing from anywhere. */
export async function reportPage(result: Result): Promise<string> {
  const { verdict } = result;
  return renderPage({
    heading: 'RowMQ simulator',
    subtitle: subtitle(result),
    status: verdict.status,
    ...chartsOf(result.samples),
    aboveHtml: `<div class="tiles">${tiles(result)}</div>
${result.notes.map((note) => `<p>${html(note)}</p>`).join('')}
<h2>Guarantees</h2>
<div class="scroll"><table>
<thead><tr><th>Guarantee</th><th>Verdict</th><th class="number">Checked</th><th class="number">Broken</th><th class="number">Unproven</th></tr></thead>
<tbody>${verdict.guarantees.map(guaranteeRow).join('')}</tbody>
</table></div>
${verdict.guarantees.map(examples).join('')}`,
    belowHtml: `<div class="lists">
<section><h2>What became of the messages</h2><table><tbody>${countRows(verdict.fates, FATES)}</tbody></table></section>
<section><h2>Why messages were delivered again</h2><table><tbody>${countRows(verdict.redeliveries, CAUSES)}</tbody></table>
<h2>Errors</h2><table><tbody>${errorRows(result.errors)}</tbody></table></section>
<section><h2>Settings</h2><table><tbody>${settingRows(result.settings)}</tbody></table></section>
</div>`,
  });
}

function subtitle({ startedAt, settings, samples }: Result): string {
  const seconds = samples.at(-1)?.at ?? 0;
  return (
    `${startedAt.toISOString().replace('T', ' ').slice(0, 19)} UTC · ${settings.producers} producers, ` +
    `${settings.consumers} consumers, batches of ${settings.batch}, ${settings.queues} queue${settings.queues === 1 ? '' : 's'} · ${seconds.toFixed(0)} s with draining`
  );
}

function tiles({ totals, settings, latency, leases, errors }: Result): string {
  const errorCount = Object.values(errors).reduce((sum, count) => sum + count, 0);
  const entries: [string, string][] = [
    [n(totals.enqueued), 'messages enqueued'],
    [n(totals.enqueued / settings.seconds), 'enqueued per second'],
    [n(totals.acked), 'acked'],
    [n(leases), 'leases'],
    [n(totals.redelivered), 'redelivered'],
    [n(errorCount), 'errors'],
    [`${ms(latency.enqueue.p99)} ms`, 'p99 enqueue'],
    [`${ms(latency.endToEnd.p99)} ms`, 'p99 end to end'],
  ];
  return entries
    .map(([value, name]) => `<div class="tile"><b>${value}</b><span class="soft">${name}</span></div>`)
    .join('');
}

function guaranteeRow({ guarantee, status, checked, unit, broken, unproven }: GuaranteeResult): string {
  return (
    `<tr><td>${html(guarantee)}</td><td class="${status}"><b>${status}</b></td>` +
    `<td class="number">${n(checked)} ${html(unit)}</td><td class="number">${n(broken)}</td><td class="number">${n(unproven)}</td></tr>`
  );
}

function examples({ guarantee, status, examples: found }: GuaranteeResult): string {
  if (found.length === 0) return '';
  const items = found.map(({ why, history }) => `<p>${html(why)}</p><pre>${html(history.join('\n'))}</pre>`);
  return `<h3 class="${status}">${html(guarantee)}: ${status}</h3>${items.join('')}`;
}

function countRows<Key extends string>(counts: Record<Key, number>, words: Record<Key, string>): string {
  const keys = Object.keys(words).filter((key): key is Key => key in words);
  return keys.map((key) => `<tr><td>${html(words[key])}</td><td class="number">${n(counts[key])}</td></tr>`).join('');
}

function errorRows(errors: Record<string, number>): string {
  const entries = Object.entries(errors);
  if (entries.length === 0) return '<tr><td>none</td></tr>';
  return entries.map(([code, count]) => `<tr><td>${html(code)}</td><td class="number">${n(count)}</td></tr>`).join('');
}

function settingRows({ apiKey: _secret, defaultUrl: _unused, ...shown }: Result['settings']): string {
  return Object.entries(shown)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `<tr><td>${html(optionName(name))}</td><td class="value">${html(text(value))}</td></tr>`)
    .join('');
}

function optionName(setting: string): string {
  return `--${setting.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

function text(value: string | number | boolean | Span | undefined): string {
  return typeof value === 'object' ? `${value.min}-${value.max}` : String(value);
}

const n = (value: number) => Math.round(value).toLocaleString('en');
const ms = (value: number | null) => (value === null ? '–' : value.toFixed(value < 10 ? 1 : 0));
