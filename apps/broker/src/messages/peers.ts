/** The other broker processes on the same database, as far as consumers matter to them. */
export interface Peers {
  /**
   * This number of messages is ready in this queue, and the consumers of this process do not want
   * them. Infinity: nobody knows how many.
   */
  wake(queueName: string, messages: number): void;
  /** Consumers of this queue are parked here, so hints from peers are welcome. */
  parked(queueName: string): void;
}

/** Injection token of {@link Peers}. */
export const PEERS = Symbol('PEERS');
