import { performance } from 'node:perf_hooks';

/** A broker's `/metrics` of the time since the last reading. */
export interface MetricsReading {
  heapBytes: number;
  /** Deliveries in all queues, in any state. */
  deliveries: number;
  ackedPerSecond: number;
  /** Durations of the transactions that claims share; null when there were none. */
  claimMs: { p50: number | null; p99: number | null };
}

const TIMEOUT_MS = 10_000;

/** Reads a broker's `/metrics` again and again. */
export class BrokerMetrics {
  private before = { at: Number.NaN, acked: 0, claims: new Map<number, number>() };

  constructor(private readonly url: string) {}

  async read(): Promise<MetricsReading> {
    const response = await fetch(`${this.url}/metrics`, { signal: AbortSignal.timeout(TIMEOUT_MS) });
    const text = await response.text();
    if (!response.ok) throw new Error(`/metrics answered ${response.status}: ${text}`);
    const now = {
      at: performance.now(),
      acked: total(text, 'rowmq_messages_total', 'event="acked"'),
      claims: buckets(text, 'rowmq_batch_duration_seconds_bucket', 'verb="dequeue"'),
    };
    const { before } = this;
    this.before = now;
    const claims = new Map([...now.claims].map(([bound, count]) => [bound, count - (before.claims.get(bound) ?? 0)]));
    const at = (share: number): number | null => {
      const seconds = quantile(claims, share);
      return seconds === null ? null : seconds * 1000;
    };
    return {
      heapBytes: total(text, 'nodejs_heap_size_used_bytes'),
      deliveries: total(text, 'rowmq_queue_deliveries'),
      ackedPerSecond: ((now.acked - before.acked) * 1000) / (now.at - before.at),
      claimMs: { p50: at(0.5), p99: at(0.99) },
    };
  }
}

interface Line {
  labels: string;
  value: number;
}

/** The lines of one metric in the Prometheus text format. */
function lines(text: string, name: string, label = ''): Line[] {
  const pattern = new RegExp(`^${name}(?:\\{(.*)\\})? (\\S+)$`, 'gm');
  return [...text.matchAll(pattern)]
    .map(([, labels = '', value]) => ({ labels, value: Number(value) }))
    .filter(({ labels }) => labels.includes(label));
}

function total(text: string, name: string, label?: string): number {
  return lines(text, name, label).reduce((sum, { value }) => sum + value, 0);
}

/** Counts up to each bound of a histogram. */
function buckets(text: string, name: string, label: string): Map<number, number> {
  const counts = new Map<number, number>();
  for (const { labels, value } of lines(text, name, label)) {
    const bound = /le="([^"]+)"/.exec(labels)?.[1];
    if (bound !== undefined) counts.set(bound === '+Inf' ? Infinity : Number(bound), value);
  }
  return counts;
}

/**
 * Spreads the values of a bucket evenly over it, as Prometheus does. Returns null when there are
 * none.
 * @param counts up to each bound, in ascending order
 */
export function quantile(counts: ReadonlyMap<number, number>, share: number): number | null {
  const all = counts.get(Infinity) ?? 0;
  if (all <= 0) return null;
  const rank = all * share;
  let [lower, below] = [0, 0];
  for (const [bound, upTo] of counts) {
    if (upTo >= rank) return bound === Infinity ? lower : lower + ((bound - lower) * (rank - below)) / (upTo - below);
    [lower, below] = [bound, upTo];
  }
  return lower;
}
