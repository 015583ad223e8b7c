import { median, type Quantiles } from './figures.js';
import { number, table } from './markdown.js';
import type { Measured, Results } from './scenario.js';

/** Results of several servers, by their names. */
export type ServerResults = Record<string, Results>;

/** Two scenarios of one run. The table shows the rate of one divided by that of the other. */
export interface Comparison {
  label: string;
  of: string;
  to: string;
}

/** Medians of rates with the lowest and highest run, and the costs of a message. */
export function rateTable(results: ServerResults): string {
  const head = [
    'server',
    'scenario',
    'messages/s',
    'CPU µs a message: broker',
    'database',
    'load generator',
    'bytes a message: redo',
    'binlog',
    'broker MiB, start → end',
  ];
  const rows = eachScenario(results).map(([server, name, { median: figures, runs }]) => [
    server,
    name,
    spread(runs.map(({ perSecond }) => perSecond)),
    number(figures.cpuMicros.broker),
    number(figures.cpuMicros.database),
    number(figures.cpuMicros.generator),
    number(figures.written.redo, 0),
    number(figures.written.binlog, 0),
    `${number(figures.brokerMegabytes.start, 0)} → ${number(figures.brokerMegabytes.end, 0)}`,
  ]);
  return table(head, rows);
}

/**
 * p50 / p99 in ms of the latencies with these names. It leaves out scenarios that have none of
 * them.
 */
export function latencyTable(results: ServerResults, names: readonly string[]): string {
  const cell = (latency: Quantiles | undefined): string =>
    latency ? `${number(latency.p50)} / ${number(latency.p99)}` : '–';
  const rows = eachScenario(results)
    .map(([server, name, { median: figures }]) => ({
      server,
      name,
      latencies: names.map((each) => figures.latencyMs[each]),
    }))
    .filter(({ latencies }) => latencies.some(Boolean))
    .map(({ server, name, latencies }) => [server, name, ...latencies.map(cell)]);
  return table(['server', 'scenario', ...names.map((name) => `${name}: p50 / p99 ms`)], rows);
}

/** Medians of the ratios of each run. It leaves out comparisons that were not measured. */
export function ratioTable(results: ServerResults, comparisons: (of: Results) => readonly Comparison[]): string {
  const rows = Object.entries(results).flatMap(([server, scenarios]) =>
    comparisons(scenarios).flatMap(({ label, of, to }) => {
      const ratios = runRatios(scenarios[of], scenarios[to]);
      return ratios.length === 0 ? [] : [[server, label, spread(ratios, 2)]];
    }),
  );
  return table(['server', 'ratio of rates in the same run', 'median (lowest – highest)'], rows);
}

function runRatios(of: Measured | undefined, to: Measured | undefined): number[] {
  if (of === undefined || to === undefined) return [];
  return of.runs.map(({ perSecond }, run) => perSecond / (to.runs[run]?.perSecond ?? Number.NaN));
}

/** The median, and between which values it lies. */
function spread(values: readonly number[], decimals = 1): string {
  const middle = `**${number(median(values), decimals)}**`;
  if (values.length === 1) return middle;
  return `${middle} (${number(Math.min(...values), decimals)} – ${number(Math.max(...values), decimals)})`;
}

/** Every scenario of every server, with both names. */
export function eachScenario(results: ServerResults): [server: string, scenario: string, Measured][] {
  return Object.entries(results).flatMap(([server, scenarios]) =>
    Object.entries(scenarios).map(([name, measured]): [string, string, Measured] => [server, name, measured]),
  );
}
