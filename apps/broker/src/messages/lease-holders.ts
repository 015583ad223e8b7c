import { Injectable } from '@nestjs/common';
import { leaseOf } from '@rowmq/contract';
import type { KnownConsumer } from './known-consumers.js';

/** Leases that a broker remembers, in 5 to 15 MB. */
const REMEMBERED = 65_536;

/**
 * The consumers that got, or last extended, the latest leases at this broker. It is for operators,
 * and best effort: it is in memory only, and a new lease takes the place of the oldest. A consumer
 * that renews its leases is remembered by each renewal.
 *
 * A column would cost each claim redo and binlog, and would need a row per consumer: consumers that
 * share a claim share deliveries. This costs two array elements a message.
 */
@Injectable()
export class LeaseHolders {
  private readonly receipts: string[] = [];
  private readonly consumers: KnownConsumer[] = [];
  private next = 0;

  /** Remembers who holds these leases. */
  record(consumer: KnownConsumer, leases: readonly { receipt: string }[]): void {
    for (const { receipt } of leases) {
      this.receipts[this.next] = receipt;
      this.consumers[this.next] = consumer;
      this.next = (this.next + 1) % REMEMBERED;
    }
  }

  /** The consumers behind these leases ({@link leaseOf}), as far as they are remembered. */
  find(leases: ReadonlySet<string>): Map<string, KnownConsumer> {
    const found = new Map<string, KnownConsumer>();
    if (leases.size === 0) return found;
    for (const [lease, consumer] of this.fromLatest())
      if (leases.has(lease) && !found.has(lease)) found.set(lease, consumer);
    return found;
  }

  /** The latest leases of a queue, so many at most. They may have ended. */
  latest(queue: string, most: number): Map<string, KnownConsumer> {
    const found = new Map<string, KnownConsumer>();
    for (const [lease, consumer] of this.fromLatest()) {
      if (found.size === most) break;
      if (consumer.queue === queue && !found.has(lease)) found.set(lease, consumer);
    }
    return found;
  }

  private *fromLatest(): Iterable<[string, KnownConsumer]> {
    const count = this.receipts.length;
    for (let index = 1; index <= count; index += 1) {
      const at = (this.next - index + count) % count;
      yield [leaseOf(this.receipts[at] as string), this.consumers[at] as KnownConsumer];
    }
  }
}
