import { build, type Histogram } from 'hdr-histogram-js';

const TIMED = ['enqueue', 'dequeue', 'ack', 'endToEnd'] as const;
export type Timed = (typeof TIMED)[number];

const COUNTED = [
  'enqueued',
  'dequeued',
  'acked',
  'nacked',
  'extended',
  'redelivered',
  'leaseLost',
  'vanished',
  'hungUp',
  'slow',
] as const;
export type Counted = (typeof COUNTED)[number];

/** Milliseconds; null where nothing was measured. */
export interface Percentiles {
  p50: number | null;
  p95: number | null;
  p99: number | null;
  max: number | null;
}

export interface Depth {
  ready: number;
  delayed: number;
  leased: number;
  /** In ordered queues: behind others of their group. */
  waiting: number;
}

/** One interval of a run, about a second long. */
export interface Sample {
  /** Seconds since the run began. */
  at: number;
  seconds: number;
  counts: Record<Counted, number>;
  latency: Record<Timed, Percentiles>;
  /** Null when the broker could not be asked. */
  depth: Depth | null;
  requestsInFlight: number;
  errors: number;
}

/**
 * Counts and times the work of producers and consumers, for the current interval and for the whole
 * run.
 */
export class Meter {
  readonly totals: Record<Counted, number> = zeros();
  readonly errors = new Map<string, number>();
  requestsInFlight = 0;
  #interval: Record<Counted, number> = zeros();
  #intervalErrors = 0;
  readonly #intervalTimes = histograms();
  readonly #times = histograms();

  count(what: Counted, by = 1): void {
    this.totals[what] += by;
    this.#interval[what] += by;
  }

  error(code: string): void {
    this.#intervalErrors++;
    this.errors.set(code, (this.errors.get(code) ?? 0) + 1);
  }

  time(what: Timed, ms: number): void {
    const microseconds = Math.max(1, Math.round(ms * 1000));
    this.#intervalTimes[what].recordValue(microseconds);
    this.#times[what].recordValue(microseconds);
  }

  /** Ends the interval and returns its figures. */
  sample(at: number, seconds: number, depth: Depth | null): Sample {
    const sample: Sample = {
      at,
      seconds,
      counts: this.#interval,
      latency: percentilesOf(this.#intervalTimes),
      depth,
      requestsInFlight: this.requestsInFlight,
      errors: this.#intervalErrors,
    };
    this.#interval = zeros();
    this.#intervalErrors = 0;
    for (const what of TIMED) this.#intervalTimes[what].reset();
    return sample;
  }

  /** Latencies of the whole run. */
  latency(): Record<Timed, Percentiles> {
    return percentilesOf(this.#times);
  }
}

function zeros(): Record<Counted, number> {
  return {
    enqueued: 0,
    dequeued: 0,
    acked: 0,
    nacked: 0,
    extended: 0,
    redelivered: 0,
    leaseLost: 0,
    vanished: 0,
    hungUp: 0,
    slow: 0,
  };
}

function histogram(): Histogram {
  return build({ numberOfSignificantValueDigits: 3, bitBucketSize: 32 });
}

function histograms(): Record<Timed, Histogram> {
  return { enqueue: histogram(), dequeue: histogram(), ack: histogram(), endToEnd: histogram() };
}

function percentiles(of: Histogram): Percentiles {
  if (of.totalCount === 0) return { p50: null, p95: null, p99: null, max: null };
  const at = (percentile: number) => of.getValueAtPercentile(percentile) / 1000;
  return { p50: at(50), p95: at(95), p99: at(99), max: at(100) };
}

function percentilesOf({ enqueue, dequeue, ack, endToEnd }: Record<Timed, Histogram>): Record<Timed, Percentiles> {
  return {
    enqueue: percentiles(enqueue),
    dequeue: percentiles(dequeue),
    ack: percentiles(ack),
    endToEnd: percentiles(endToEnd),
  };
}
