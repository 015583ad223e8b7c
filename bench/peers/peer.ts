/** Measured of a peer, in this order. */
export const STRETCH_KINDS = ['batch', 'single', 'steady', 'used'] as const;
/**
 * - `batch`: as fast as it goes, 100 messages at a time or prefetched.
 * - `single`: as fast as it goes, one message at a time, 50 producers and 50 consumers.
 * - `steady`: 200 single messages a second, for the latency.
 * - `used`: as services use the system's Node client. 50 callers in one process each send one
 *   message a call, and 50 handlers in another process each handle one at a time.
 */
export type StretchKind = (typeof STRETCH_KINDS)[number];

/** Producers and consumers on the client's side. A producer has one call in flight. */
export interface WorkerCounts {
  producers: number;
  consumers: number;
}

/** One message system, or one way of using it. */
export interface Peer {
  /** For `--only`. */
  name: string;
  title: string;
  /** Module in `clients/` that speaks to it, in a process of its own. */
  client: string;
  /** Options of the client module, beyond the address. */
  clientOptions?: Record<string, string | number>;
  /** Its measurements, and the number of workers in each. */
  stretches: Partial<Record<StretchKind, WorkerCounts>>;
  /** Settings that make an answered message survive a crash of the machine. */
  durability: string;
  /** Its set-up for throughput. */
  settings: string;
  /** Throws {@link PeerUnavailableError} if its server is not installed. */
  start(): Promise<PeerServer>;
}

/** The servers of a peer while they run, with nothing in them. */
export interface PeerServer {
  /** Such as `PostgreSQL 15.13`. */
  version: string;
  /** Clients connect to it. */
  address: string;
  /** Processes whose CPU time counts, with their children, by name. */
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
