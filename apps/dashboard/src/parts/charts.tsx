import type { JSX } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import type { HistoryAnswer } from '@rowmq/contract';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { admin } from '../api.js';
import { clock, number, short } from '../format.js';
import { useLive } from '../live.js';

const EVERY_MS = 20_000;
const MINUTE_S = 60;
const HEIGHT = 160;
const SPANS = { 60: 'Last hour', 1440: 'Last day' } as const;

type Minute = HistoryAnswer['minutes'][number];

interface Series {
  readonly label: string;
  /** The variable of the style sheet with its colour. */
  readonly color: string;
  readonly value: (minute: Minute) => number | null;
}

const FLOW: readonly Series[] = [
  { label: 'in', color: '--chart-in', value: ({ enqueued }) => enqueued },
  { label: 'acked', color: '--chart-out', value: ({ acked }) => acked },
  { label: 'failed', color: '--chart-failed', value: ({ nacked, deadLettered }) => nacked + deadLettered },
];
const DEPTH: readonly Series[] = [
  { label: 'ready', color: '--chart-in', value: ({ ready }) => ready },
  { label: 'leased', color: '--chart-out', value: ({ leased }) => leased },
  { label: 'delayed', color: '--chart-other', value: ({ delayed }) => delayed },
];

/** The last hour or day of a queue, minute by minute, from the database. */
export function Charts({ queue }: { queue: string }): JSX.Element {
  const [minutes, setMinutes] = useState<keyof typeof SPANS>(60);
  const { data, error } = useLive<HistoryAnswer>(admin(['queues', queue, 'history'], { minutes }), EVERY_MS);
  return (
    <section aria-label="Charts" class="charts">
      <div class="segments" role="group" aria-label="Time span of the charts">
        {Object.entries(SPANS).map(([span, label]) => (
          <button
            key={span}
            type="button"
            aria-pressed={Number(span) === minutes}
            onClick={() => setMinutes(Number(span) as keyof typeof SPANS)}
          >
            {label}
          </button>
        ))}
      </div>
      {error !== undefined && data === undefined && <p class="fault">{error.message}</p>}
      <div class="pair">
        <Chart title="Messages a minute" series={FLOW} span={minutes} minutes={data?.minutes} emptyIs={0} />
        <Chart title="Depth" series={DEPTH} span={minutes} minutes={data?.minutes} emptyIs={null} />
      </div>
    </section>
  );
}

interface ChartProps {
  readonly title: string;
  readonly series: readonly Series[];
  /** In minutes. */
  readonly span: number;
  readonly minutes: readonly Minute[] | undefined;
  /** The value of a minute without a row. */
  readonly emptyIs: 0 | null;
}

function Chart({ title, series, span, minutes, emptyIs }: ChartProps): JSX.Element {
  const place = useRef<HTMLDivElement>(null);
  const scheme = useScheme();
  const data = minutes === undefined ? undefined : columnsOf(series, span, minutes, emptyIs);
  const latest = useRef(data);
  latest.current = data;
  const plot = useRef<uPlot | undefined>(undefined);
  const isReady = data !== undefined;
  useEffect(() => {
    const element = place.current;
    if (element === null || latest.current === undefined) return undefined;
    const drawn = new uPlot(optionsOf(series, element), latest.current, element);
    plot.current = drawn;
    const observer = new ResizeObserver(() => {
      if (element.clientWidth > 0) drawn.setSize({ width: element.clientWidth, height: HEIGHT });
    });
    observer.observe(element);
    return () => {
      observer.disconnect();
      drawn.destroy();
      plot.current = undefined;
    };
  }, [isReady, scheme, series]);
  useEffect(() => {
    if (data !== undefined) plot.current?.setData(data);
  });
  return (
    <figure>
      <figcaption>
        {title}
        {series.map(({ label, color }) => (
          <span key={label} class={`legend ${color.slice(2)}`}>
            {label}
          </span>
        ))}
        {data !== undefined && isUnknown(data) && <span class="legend unknown">the reaper has not counted yet</span>}
      </figcaption>
      <div ref={place} class="plot" role="img" aria-label={summary(title, series, data)} />
    </figure>
  );
}

/** Whether no series has a value, so that the chart is empty. */
function isUnknown([, ...columns]: uPlot.AlignedData): boolean {
  return columns.every((values) => Array.from<unknown>(values).every((value) => value === null));
}

/** The times and each series, with a point for every minute. */
function columnsOf(
  series: readonly Series[],
  span: number,
  minutes: readonly Minute[],
  emptyIs: 0 | null,
): uPlot.AlignedData {
  const byTime = new Map(minutes.map((minute) => [Math.floor(Date.parse(minute.at) / 1000), minute]));
  const known = Math.max(...byTime.keys(), 0);
  const last = Math.max(known, Math.floor(Date.now() / 1000 / MINUTE_S) * MINUTE_S);
  const times = Array.from({ length: span }, (_, index) => last - (span - 1 - index) * MINUTE_S);
  const columns = series.map(({ value }) =>
    times.map((time) => {
      const minute = byTime.get(time);
      return minute === undefined ? emptyIs : value(minute);
    }),
  );
  return [times, ...columns] as uPlot.AlignedData;
}

function optionsOf(series: readonly Series[], element: HTMLElement): uPlot.Options {
  const style = getComputedStyle(element);
  const color = (name: string): string => style.getPropertyValue(name).trim();
  const axis: uPlot.Axis = {
    stroke: color('--muted'),
    grid: { stroke: color('--line'), width: 1 },
    ticks: { show: false },
    font: '12px system-ui, sans-serif',
  };
  return {
    width: Math.max(element.clientWidth, 100),
    height: HEIGHT,
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, points: { size: 6 }, sync: { key: 'queue' } },
    scales: { y: { range: (_, _min, max) => [0, Math.max(max * 1.05, 1)] } },
    axes: [
      { ...axis, values: (_, times) => times.map((time) => clockAt(time)), space: 70, size: 28 },
      {
        ...axis,
        size: 52,
        values: (_, values) => values.map((value) => (Number.isInteger(value) ? short(value) : '')),
      },
    ],
    series: [
      {},
      ...series.map(({ label, color: name }) => ({
        label,
        stroke: color(name),
        width: 1.75,
        spanGaps: true,
        points: { show: false },
      })),
    ],
    plugins: [tooltip(series)],
  };
}

function clockAt(seconds: number): string {
  return new Date(seconds * 1000).toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' });
}

/** Shows the figures of the minute below the pointer. */
function tooltip(series: readonly Series[]): uPlot.Plugin {
  const box = document.createElement('div');
  box.className = 'tooltip';
  box.hidden = true;
  return {
    hooks: {
      init: (plot) => plot.over.append(box),
      setCursor: (plot) => {
        const { idx, left = -1 } = plot.cursor;
        box.hidden = idx === undefined || idx === null || left < 0;
        if (idx === undefined || idx === null) return;
        const time = plot.data[0][idx] as number;
        const figures = series.map(({ label }, index) => {
          const value = plot.data[index + 1]?.[idx];
          return `${label} ${value === undefined || value === null ? '–' : number(value)}`;
        });
        box.textContent = `${clockAt(time)}  ${figures.join(' · ')}`;
        box.classList.toggle('left', left > plot.over.clientWidth / 2);
      },
    },
  };
}

/** The chart for those who do not see it. */
function summary(title: string, series: readonly Series[], data: uPlot.AlignedData | undefined): string {
  if (data === undefined) return `${title}: loading`;
  const parts = series.map(({ label }, index) => {
    const values = (data[index + 1] ?? []).filter((value) => value !== null && value !== undefined);
    const now = values.at(-1);
    return now === undefined
      ? `${label} unknown`
      : `${label} ${number(now)} now, at most ${number(Math.max(...values))}`;
  });
  const from = data[0][0];
  return `${title} since ${from === undefined ? 'now' : clock(from * 1000)}: ${parts.join('; ')}`;
}

/** Changes with the reader's colour scheme, because a canvas does not follow it by itself. */
function useScheme(): boolean {
  const query = matchMedia('(prefers-color-scheme: dark)');
  const [isDark, setDark] = useState(query.matches);
  useEffect(() => {
    const changed = (): void => setDark(query.matches);
    query.addEventListener('change', changed);
    return () => query.removeEventListener('change', changed);
  }, []);
  return isDark;
}
