import type { Sample, Timed } from './meter.js';

/** One chart: its series share the unit and the time axis. `color` names a colour of the page. */
export interface Chart {
  title: string;
  unit: string;
  series: { name: string; color: 'one' | 'two' | 'three'; values: (number | null)[] }[];
}

/** What the report draws, from a run's samples. */
export function chartsOf(samples: readonly Sample[]): { at: number[]; charts: Chart[] } {
  const perSecond = (what: keyof Sample['counts']) =>
    samples.map(({ counts, seconds }) => round(counts[what] / seconds));
  const depth = (what: 'ready' | 'delayed' | 'leased') => samples.map((sample) => sample.depth?.[what] ?? null);
  const latency = (title: string, what: Timed): Chart => ({
    title,
    unit: 'ms',
    series: [
      { name: 'p50', color: 'one', values: samples.map((sample) => round(sample.latency[what].p50)) },
      { name: 'p95', color: 'three', values: samples.map((sample) => round(sample.latency[what].p95)) },
      { name: 'p99', color: 'two', values: samples.map((sample) => round(sample.latency[what].p99)) },
    ],
  });
  return {
    at: samples.map(({ at }) => Math.round(at * 10) / 10),
    charts: [
      {
        title: 'Throughput, messages per second',
        unit: '/s',
        series: [
          { name: 'enqueue', color: 'one', values: perSecond('enqueued') },
          { name: 'dequeue', color: 'three', values: perSecond('dequeued') },
          { name: 'ack', color: 'two', values: perSecond('acked') },
        ],
      },
      {
        title: 'Depth, messages on the broker',
        unit: '',
        series: [
          { name: 'ready', color: 'one', values: depth('ready') },
          { name: 'delayed', color: 'three', values: depth('delayed') },
          { name: 'leased', color: 'two', values: depth('leased') },
        ],
      },
      latency('End to end: from enqueue sent to first delivery received, ms', 'endToEnd'),
      latency('Enqueue, ms', 'enqueue'),
      latency('Dequeue that brought messages, waiting included, ms', 'dequeue'),
      latency('Ack, ms', 'ack'),
      {
        title: 'Redeliveries and errors, per second',
        unit: '/s',
        series: [
          { name: 'redelivered', color: 'one', values: perSecond('redelivered') },
          { name: 'stale receipts refused', color: 'three', values: perSecond('leaseLost') },
          { name: 'errors', color: 'two', values: samples.map(({ errors, seconds }) => round(errors / seconds)) },
        ],
      },
    ],
  };
}

function round(value: number | null): number | null {
  return value === null ? null : Math.round(value * 100) / 100;
}
