import type { Chart } from '../../tools/simulator/src/report-charts.js';
import { html, renderPage } from '../../tools/simulator/src/report-page.js';
import { number } from '../harness/markdown.js';
import type { Flatness } from './flatness.js';
import { quantities, type Sample } from './quantities.js';

/** What a page tells of a soak on one server. */
export interface SoakPage {
  subtitle: string;
  verdict: 'flat' | 'not flat' | 'not judged';
  flatness: readonly Flatness[];
  samples: readonly Sample[];
  /** What the simulator said at the end. */
  simulator: string;
}

const STATUS = { flat: 'OK', 'not flat': 'BROKEN', 'not judged': 'UNPROVEN' } as const;

/** The page about a soak, complete in itself. */
export async function soakPage({ subtitle, verdict, flatness, samples, simulator }: SoakPage): Promise<string> {
  return renderPage({
    heading: `RowMQ soak, ${verdict}`,
    subtitle,
    status: STATUS[verdict],
    at: samples.map(({ at }) => Math.round(at)),
    charts: charts(samples),
    aboveHtml: `<h2>The second quarter and the last, medians</h2>
<div class="scroll"><table>
<thead><tr><th>Quantity</th><th class="number">Second</th><th class="number">Last</th><th class="number">Flat up to</th><th>Verdict</th></tr></thead>
<tbody>${flatness.map(row).join('')}</tbody>
</table></div>`,
    belowHtml: `<h2>The simulator’s verdict on the messages</h2><pre>${html(simulator.trim())}</pre>`,
  });
}

function row({ quantity, second, last, allowed, isFlat }: Flatness): string {
  const cells = [second, last, allowed ?? Number.NaN].map((value) => `<td class="number">${number(value)}</td>`);
  const verdict = allowed === null ? '–' : `<b class="${isFlat ? 'OK' : 'BROKEN'}">${isFlat ? 'flat' : 'not flat'}</b>`;
  return `<tr><td>${html([quantity.name, quantity.unit].filter(Boolean).join(', '))}</td>${cells.join('')}<td>${verdict}</td></tr>`;
}

function charts(samples: readonly Sample[]): Chart[] {
  const titles = new Set(quantities().map(([, { chart }]) => chart));
  return [...titles].map((title) => {
    const shown = quantities().filter(([, { chart }]) => chart === title);
    const series = shown.map(([name, { series: label, color }]) => ({
      name: label,
      color,
      values: samples.map(({ values: { [name]: value } }) => (value === null ? null : Math.round(value * 100) / 100)),
    }));
    return { title, unit: shown[0]?.[1].unit ?? '', series };
  });
}
