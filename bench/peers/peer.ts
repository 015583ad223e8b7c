/** What is measured of a peer, in this order. */
export const STRETCH_KINDS = ['batch', 'single', 'steady'] as const;
/**
 * `batch`: as fast as it goes, 100 messages at a time or prefetched. `single`: as fast as it goes, one message at a time, 50 producers and 50 consumers.
 * `steady`: 200 single messages a second, for the latency.
 */
export type StretchKind = (typeof STRETCH_KINDS)[number];

/** How many take part on the client's side; a producer has one call under way at a time. */
export interface WorkerCounts {
  producers: number;
  consumers: number;
}

/** One message system, or one way of using it. */
export interface Peer {
  /** For `--only`. */
  name: string;
  title: string;
  /** Of `clients/`: the module that speaks to it, run in a process of its own. */
  client: string;
  /** What the client module is told, beyond the address. */
  clientOptions?: Record<string, string | number>;
  /** What is measured of it, and with how many hands. */
  stretches: Partial<Record<StretchKind, WorkerCounts>>;
  /** What makes an answered message survive a crash of the machine. */
  durability: string;
  /** How it was set up for throughput, and what batches. */
  settings: string;
  /** Throws {@link PeerUnavailableError} if its server is not installed. */
  start(): Promise<PeerServer>;
}

/** The servers of a peer while they run, with nothing in them. */
export interface PeerServer {
  /** Such as `PostgreSQL 15.13`. */
  version: string;
  /** What its clients connect to. */
  address: string;
  /** Processes whose CPU time counts, their children included, by what they are. */
  pids: Record<string, number>;
  /** Stops them and removes their files. */
  stop(): Promise<void>;
}

/** A peer that cannot be measured on this machine as it is; the message says what is needed. */
export class PeerUnavailableError extends Error {
  override readonly name = 'PeerUnavailableError';

  /** @param debianPackage as bench/peers/install.sh takes it */
  constructor(
    program: string,
    readonly debianPackage: string,
  ) {
    super(`${program} is not installed: run bench/peers/install.sh ${debianPackage} as root`);
  }
}
