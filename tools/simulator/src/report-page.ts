import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import type { Status } from './guarantee.js';
import { REPORT_SCRIPT, REPORT_STYLE } from './report-assets.js';
import type { Chart } from './report-charts.js';

const { resolve } = createRequire(import.meta.url);

/** A page about a run, with charts. Texts are plain; what is named `…Html` is markup. */
export interface Page {
  heading: string;
  subtitle: string;
  status: Status;
  /** What stands above the charts, and below them. */
  aboveHtml: string;
  belowHtml: string;
  /** Seconds since the run began, and what is drawn over them. */
  at: readonly number[];
  charts: readonly Chart[];
}

/** The page, complete in itself: it loads nothing from anywhere. */
export async function renderPage({
  heading,
  subtitle,
  status,
  aboveHtml,
  belowHtml,
  at,
  charts,
}: Page): Promise<string> {
  const [uplotScript, uplotStyle] = await Promise.all([
    readFile(resolve('uplot/dist/uPlot.iife.min.js'), 'utf8'),
    readFile(resolve('uplot/dist/uPlot.min.css'), 'utf8'),
  ]);
  const figures = charts.map(
    ({ title }, index) =>
      `<figure><h3>${html(title)}</h3><div data-chart="${index}" role="img" aria-label="${html(title)}"></div></figure>`,
  );
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${html(heading)}: ${status}</title>
<style>${uplotStyle}${REPORT_STYLE}</style>
</head>
<body>
<header>
<div><h1>${html(heading)}</h1><div class="soft">${html(subtitle)}</div></div>
<div class="verdict ${status}">Verdict: ${status}</div>
</header>
${aboveHtml}
<h2>Over time</h2>
<div class="charts">${figures.join('\n')}</div>
${belowHtml}
<script id="data" type="application/json">${json({ at, charts })}</script>
<script>${uplotScript}</script>
<script>${REPORT_SCRIPT}</script>
</body>
</html>
`;
}

/** A text as markup that shows it. */
export function html(value: string): string {
  return value.replace(/[&<>"']/g, (character) => `&#${character.codePointAt(0)};`);
}

/** JSON that may stand inside a script element. */
function json(value: unknown): string {
  return JSON.stringify(value).replaceAll('<', String.raw`\u003c`);
}
