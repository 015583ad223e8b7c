/** The other processes of this broker, as far as consumers matter to them. */
export interface Peers {
  /** More may be ready in this queue than the consumers of this process want. */
  wake(queueName: string): void;
}

/** Injection token of {@link Peers}. A process that runs alone provides none. */
export const PEERS = Symbol('PEERS');

export const NO_PEERS: Peers = { wake: () => undefined };
