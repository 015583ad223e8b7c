import { performance } from 'node:perf_hooks';

/** A minute of a load. `--seconds` may make it shorter. */
export interface Minute {
  /** Counted from when the snapshot was opened; 0 is the minute before. */
  minute: number;
  perSecond: number;
  /** Read at its end. */
  gauges: Record<string, number>;
}

/** A measurement minute by minute while a snapshot is open. It is the same for every database. */
export interface MinutesOptions {
  minutes: number;
  /** Length of a minute. */
  seconds: number;
  /** Opens a snapshot. Returns the function that closes it. */
  openSnapshot: () => Promise<() => Promise<void>>;
  /** Lets the load go on for so long. Returns the lifecycles done meanwhile. */
  lifecycles: (seconds: number) => Promise<number>;
  /** Read beside the rate. */
  gauges: Record<string, () => Promise<number>>;
  log?: (line: string) => void;
}

/** Measures one minute without a snapshot, then the others with one. */
export async function measureMinutes(options: MinutesOptions): Promise<Minute[]> {
  const measured = [await measureMinute(options, 0)];
  const closeSnapshot = await options.openSnapshot();
  try {
    while (measured.length <= options.minutes) measured.push(await measureMinute(options, measured.length));
  } finally {
    await closeSnapshot();
  }
  return measured;
}

async function measureMinute({ seconds, lifecycles, gauges, log }: MinutesOptions, minute: number): Promise<Minute> {
  const began = performance.now();
  const done = await lifecycles(seconds);
  const perSecond = done / ((performance.now() - began) / 1000);
  const read = Object.entries(gauges).map(async ([name, gauge]) => [name, await gauge()] as const);
  log?.(`minute ${minute}: ${Math.round(perSecond)}/s`);
  return { minute, perSecond, gauges: Object.fromEntries(await Promise.all(read)) };
}

/** The last minute's rate divided by the first's under the snapshot. */
export function lastToFirst(minutes: readonly Minute[]): number {
  const first = minutes.find(({ minute }) => minute === 1);
  return (minutes.at(-1)?.perSecond ?? Number.NaN) / (first?.perSecond ?? Number.NaN);
}
