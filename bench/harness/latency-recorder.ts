import { performance } from 'node:perf_hooks';
import { type Quantiles, quantiles } from './figures.js';

/** Collects how long things took, by name. */
export class LatencyRecorder {
  private readonly samples = new Map<string, number[]>();

  /** @param since what `performance.now()` said when it began. */
  record(name: string, since: number): void {
    const latency = performance.now() - since;
    const samples = this.samples.get(name);
    if (samples) samples.push(latency);
    else this.samples.set(name, [latency]);
  }

  /** What was recorded since the last time, by name; it is forgotten. */
  take(): Record<string, Quantiles> {
    const taken = [...this.samples].map(([name, samples]) => [name, quantiles(samples)] as const);
    this.samples.clear();
    return Object.fromEntries(taken);
  }
}
