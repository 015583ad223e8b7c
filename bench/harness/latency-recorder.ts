import { performance } from 'node:perf_hooks';
import { type Quantiles, quantiles } from './figures.js';

/** Collects latencies by name. */
export class LatencyRecorder {
  private readonly samples = new Map<string, number[]>();

  /** @param since its beginning, on the clock of `performance.now()` */
  record(name: string, since: number): void {
    const latency = performance.now() - since;
    const samples = this.samples.get(name);
    if (samples) samples.push(latency);
    else this.samples.set(name, [latency]);
  }

  /** Takes what was recorded since the last call, by name, and forgets it. */
  take(): Record<string, Quantiles> {
    const taken = [...this.samples].map(([name, samples]) => [name, quantiles(samples)] as const);
    this.samples.clear();
    return Object.fromEntries(taken);
  }
}
