/** The metrics of all processes of this broker, to which one of several workers belongs. */
export interface PeerMetrics {
  /** In the Prometheus text format: the sums over all of them, this process included. */
  text(): Promise<string>;
  /** A queue was deleted: the others stop reporting it. */
  forget(queueName: string): void;
}

/** Injection token of {@link PeerMetrics}. A process that runs alone provides none. */
export const PEER_METRICS = Symbol('PEER_METRICS');
