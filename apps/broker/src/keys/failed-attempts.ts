import { Inject, Injectable, Logger } from '@nestjs/common';
import { RowmqError } from '@rowmq/contract';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';
import { networkOf } from './network.js';

/** Failures count for this long, from the first one of an address. */
const WINDOW_MS = 60_000;
/** Addresses that are remembered. The oldest goes first. */
const MOST_ADDRESSES = 10_000;
/** Lines in the log within {@link WINDOW_MS}. */
const MOST_LINES = 60;

interface Failures {
  count: number;
  readonly until: number;
}

/**
 * Counts calls without a valid key, by address. An address that exceeds the limit gets
 * `too-many-attempts` for the rest of the minute: for every call without a valid key, and for
 * ROWMQ_ADMIN_KEY, which people may choose badly. Nobody guesses the secret of another key, so
 * those stay valid, and a neighbour behind the same balancer locks nobody out.
 */
@Injectable()
export class FailedAttempts {
  private readonly logger = new Logger('keys');
  private readonly addresses = new Map<string, Failures>();
  private lines = { count: 0, until: 0 };

  constructor(@Inject(BROKER_CONFIG) private readonly config: Pick<BrokerConfig, 'failedAttempts'>) {}

  /** Throws `too-many-attempts` if the address has exceeded the limit. */
  refuseIfTooMany(address: string): void {
    if (this.addresses.size === 0) return;
    const failures = this.addresses.get(networkOf(address));
    if (failures !== undefined && failures.until > performance.now() && failures.count > this.config.failedAttempts)
      throw tooMany(failures.until);
  }

  /** Counts a call without a valid key. Returns the refusal that it gets. */
  count(address: string, refusal: RowmqError): RowmqError {
    const network = networkOf(address);
    const now = performance.now();
    let failures = this.addresses.get(network);
    if (failures === undefined || failures.until <= now) {
      this.addresses.delete(network);
      failures = { count: 0, until: now + WINDOW_MS };
      this.addresses.set(network, failures);
      const [oldest] = this.addresses.keys();
      if (this.addresses.size > MOST_ADDRESSES) this.addresses.delete(oldest as string);
    }
    failures.count += 1;
    const { failedAttempts } = this.config;
    if (failures.count === 1) this.log(`Refused a call from ${address}: ${refusal.message}`, now);
    if (failures.count <= failedAttempts) return refusal;
    if (failures.count === failedAttempts + 1)
      this.log(`Refused ${failedAttempts} calls from ${address} within a minute. Further ones get 429.`, now);
    return tooMany(failures.until);
  }

  private log(line: string, now: number): void {
    if (this.lines.until <= now) {
      if (this.lines.count > MOST_LINES)
        this.logger.warn(`Left out ${this.lines.count - MOST_LINES} lines about calls without a valid API key.`);
      this.lines = { count: 0, until: now + WINDOW_MS };
    }
    this.lines.count += 1;
    if (this.lines.count <= MOST_LINES) this.logger.warn(line);
  }
}

function tooMany(until: number): RowmqError {
  return new RowmqError(
    'too-many-attempts',
    'Too many calls without a valid API key came from this address. Correct the key, and try again later.',
    { retryAfterSeconds: Math.max(1, Math.ceil((until - performance.now()) / 1000)) },
  );
}
