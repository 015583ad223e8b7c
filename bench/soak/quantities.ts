/** A quantity that the soak reads every few seconds. */
export interface Quantity {
  /** Such as `memory of the broker`. */
  name: string;
  unit: string;
  /**
   * Allowed growth of the last quarter's median over the second's: this share of it, plus this
   * slack. Absent: it is shown, not judged.
   */
  growth?: { share: number; slack: number };
}

/** V8 sizes its heap by what it meets, and the server its caches. */
const MEMORY_GROWTH = { share: 0.05, slack: 10 };
/** Idle connections open and close. */
const HANDLE_GROWTH = { share: 0, slack: 5 };

/** In the order in which they are shown. */
export const QUANTITIES = {
  brokerMegabytes: {
    name: 'memory of the broker',
    unit: 'MiB',
    growth: MEMORY_GROWTH,
  },
  reaperMegabytes: {
    name: 'memory of the reaper',
    unit: 'MiB',
    growth: MEMORY_GROWTH,
  },
  databaseMegabytes: {
    name: 'memory of the database',
    unit: 'MiB',
    growth: MEMORY_GROWTH,
  },
  brokerHeapMegabytes: {
    name: 'heap of the broker',
    unit: 'MiB',
    growth: MEMORY_GROWTH,
  },
  reaperHeapMegabytes: {
    name: 'heap of the reaper',
    unit: 'MiB',
    growth: MEMORY_GROWTH,
  },
  brokerHandles: {
    name: 'file handles of the broker',
    unit: '',
    growth: HANDLE_GROWTH,
  },
  reaperHandles: {
    name: 'file handles of the reaper',
    unit: '',
    growth: HANDLE_GROWTH,
  },
  databaseHandles: {
    name: 'file handles of the database',
    unit: '',
    growth: HANDLE_GROWTH,
  },
  connections: {
    name: 'database connections',
    unit: '',
    growth: { share: 0, slack: 3 },
  },
  folderMegabytes: {
    name: 'data folder',
    unit: 'MiB',
    growth: { share: 0.05, slack: 16 },
  },
  tableMegabytes: {
    name: 'of it tables',
    unit: 'MiB',
    growth: { share: 0.1, slack: 16 },
  },
  binlogMegabytes: {
    name: 'of it binlog',
    unit: 'MiB',
    growth: { share: 0.1, slack: 16 },
  },
  claimMedianMs: {
    name: 'claim, p50',
    unit: 'ms',
    growth: { share: 0.25, slack: 1 },
  },
  claimTailMs: {
    name: 'claim, p99',
    unit: 'ms',
    growth: { share: 0.5, slack: 10 },
  },
  historyListLength: {
    name: 'history list length',
    unit: '',
    growth: { share: 0.5, slack: 500 },
  },
  deliveries: {
    name: 'deliveries in the queues',
    unit: '',
    growth: { share: 0.25, slack: 100 },
  },
  ackedPerSecond: {
    name: 'messages acked per second',
    unit: '/s',
  },
} as const satisfies Record<string, Quantity>;

export type QuantityName = keyof typeof QUANTITIES;

/** All of them at one instant. */
export interface Sample {
  /** Seconds since the load began. */
  at: number;
  /** Null: could not be read, or there was nothing to measure. */
  values: Record<QuantityName, number | null>;
}

/** Names and descriptions, in order. */
export function quantities(): [QuantityName, Quantity][] {
  return Object.entries(QUANTITIES) as [QuantityName, Quantity][];
}
