/** Looks of the report: plain in print, and following the reader's choice of light or dark. */
export const REPORT_STYLE = `
:root {
  color-scheme: light dark;
  --paper: #ffffff; --panel: #f6f7f9; --line: #d9dde3; --text: #1c2129; --soft: #5b6675;
  --good: #1a7f4b; --bad: #c3302b; --open: #9a6700;
  --one: #2563eb; --two: #c2570c; --three: #0f8a7e; --grid: #e4e7ec;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #12151a; --panel: #1a1f26; --line: #313944; --text: #e6e9ee; --soft: #9aa5b4;
    --good: #4cc38a; --bad: #ff7b72; --open: #e3b341;
    --one: #6ea8fe; --two: #f0975a; --three: #4fd1c1; --grid: #272e38;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 28px 24px 56px; background: var(--paper); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 17px; margin: 36px 0 12px; } h3 { font-size: 14px; margin: 0 0 8px; }
.soft { color: var(--soft); }
.OK { color: var(--good); } .BROKEN { color: var(--bad); } .UNPROVEN { color: var(--open); }
header { display: flex; justify-content: space-between; align-items: flex-start; gap: 24px; flex-wrap: wrap; }
.verdict { border: 2px solid currentColor; border-radius: 10px; padding: 8px 18px; font-size: 18px; font-weight: 650; }
.tiles { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 12px; margin-top: 24px; }
.tile { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px; }
.tile b { display: block; font-size: 21px; font-variant-numeric: tabular-nums; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 520px), 1fr)); gap: 16px; }
figure { margin: 0; background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 14px; min-width: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 7px 12px 7px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; } td.number, th.number { text-align: right; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 12px; overflow-x: auto; font-size: 13px; }
.u-legend { color: var(--text); font-size: 13px; text-align: left; }
.u-legend tr { display: inline-block; margin-right: 14px; } .u-legend th, .u-legend td { border: 0; padding: 2px 3px; }
.u-legend table, table.u-legend { width: auto; }
@media (max-width: 640px) { .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
.lists { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 320px), 1fr)); gap: 0 36px; }
.lists .number { white-space: nowrap; } .lists .value { text-align: right; overflow-wrap: anywhere; }
@media print { .charts { grid-template-columns: 1fr 1fr; } }
`;

/**
 * Draws the charts; runs in the reader's browser. Data stands in the page as JSON: \`{ at: number[], charts: [{ title, unit, series: [{ name, color, values }] }] }\`.
 */
export const REPORT_SCRIPT = `
'use strict';
const { at, charts } = JSON.parse(document.getElementById('data').textContent);
const places = [...document.querySelectorAll('[data-chart]')];
let plots = [];

function draw() {
  for (const plot of plots) plot.destroy();
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue('--' + name).trim();
  const number = (value) => value == null ? '–' : value.toLocaleString('en', { maximumFractionDigits: value < 10 ? 2 : 0 });
  const axis = { stroke: color('soft'), grid: { stroke: color('grid'), width: 1 }, ticks: { stroke: color('grid'), width: 1 } };
  plots = places.map((place) => {
    const { unit, series } = charts[Number(place.dataset.chart)];
    return new uPlot({
      width: place.clientWidth,
      height: 230,
      cursor: { sync: { key: 'run' } },
      scales: { x: { time: false }, y: { range: (_, min, max) => [0, max > 0 ? max * 1.08 : 1] } },
      axes: [
        { ...axis, values: (_, ticks) => ticks.map((tick) => tick + ' s') },
        { ...axis, size: 64, values: (_, ticks) => ticks.map(number) },
      ],
      series: [
        { label: 'at', value: (_, value) => value == null ? '–' : value.toFixed(0) + ' s' },
        ...series.map(({ name, color: own }) => ({
          label: name,
          stroke: color(own),
          width: 2,
          spanGaps: true,
          points: { show: at.length < 3 },
          value: (_, value) => value == null ? '–' : number(value) + (unit ? ' ' + unit : ''),
        })),
      ],
    }, [at, ...series.map(({ values }) => values)], place);
  });
}

let waiting = 0;
function drawSoon() {
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(draw);
}
draw();
addEventListener('resize', drawSoon);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawSoon);
`;
