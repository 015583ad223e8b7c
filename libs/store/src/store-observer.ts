/**
 * Receives events that no request asked for, after they happened. A process that counts them
 * implements it.
 */
export interface StoreObserver {
  /** A claim found deliveries that it must not hand out, and removed them from their queue. */
  removedInClaim(event: 'expired' | 'dead-lettered', queueName: string, count: number): void;
  /** A claim read the index below a scan floor and found this many deliveries there. */
  rescanned(durationMs: number, found: number): void;
}

/** Injection token of the optional {@link StoreObserver}. */
export const STORE_OBSERVER = Symbol('STORE_OBSERVER');

export const NO_OBSERVER: StoreObserver = { removedInClaim: () => undefined, rescanned: () => undefined };
