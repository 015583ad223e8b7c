import { Injectable } from '@nestjs/common';
import { LIMITS } from '@rowmq/contract';
import { LeaseHolders } from './lease-holders.js';

/** Consumers that a broker remembers, in some 5 MB. It forgets the one that came first. */
const REMEMBERED = 10_000;

/** A consumer counts for this long after its last request. A dequeue waits for a third of it. */
const ACTIVE_MS = 60_000;

/** A consumer of one queue, as this broker knows it. */
export interface KnownConsumer {
  readonly queue: string;
  /** Null: its requests name none, and have no User-Agent. */
  readonly name: string | null;
  readonly address: string;
  /** Its dequeues that wait now. */
  waiting: number;
  /** Its last dequeue or extend, by `Date.now()`. */
  seenAt: number;
}

/** A consumer and the leases that this broker gave or extended to it. They may have ended. */
export interface ConsumerView extends Omit<KnownConsumer, 'queue'> {
  leases: string[];
}

/** The consumers that used this broker. They are for operators, best effort, and in memory only. */
@Injectable()
export class KnownConsumers {
  private readonly known = new Map<string, KnownConsumer>();

  constructor(private readonly holders: LeaseHolders) {}

  /** A consumer has sent a request for this queue. */
  see(queue: string, name: string | undefined, address: string): KnownConsumer {
    const cut = name === undefined ? null : shorten(name);
    const key = `${queue}\0${address}\0${cut ?? ''}`;
    let consumer = this.known.get(key);
    if (consumer === undefined) {
      if (this.known.size >= REMEMBERED) this.known.delete(this.known.keys().next().value as string);
      consumer = { queue, name: cut, address, waiting: 0, seenAt: 0 };
      this.known.set(key, consumer);
    }
    consumer.seenAt = Date.now();
    return consumer;
  }

  /** The number of consumers of each queue that wait, or sent a request lately. */
  counts(): Map<string, number> {
    const counts = new Map<string, number>();
    const since = Date.now() - ACTIVE_MS;
    for (const { queue, waiting, seenAt } of this.known.values())
      if (waiting > 0 || seenAt > since) counts.set(queue, (counts.get(queue) ?? 0) + 1);
    return counts;
  }

  /** The consumers of a queue, with the leases that are remembered. */
  of(queue: string): ConsumerView[] {
    const leases = new Map<KnownConsumer, string[]>();
    for (const consumer of this.known.values()) if (consumer.queue === queue) leases.set(consumer, []);
    for (const [lease, consumer] of this.holders.latest(queue, LIMITS.consumerLeases)) {
      const held = leases.get(consumer);
      if (held === undefined) leases.set(consumer, [lease]);
      else held.push(lease);
    }
    return Array.from(leases, ([{ queue: _, ...consumer }, held]) => ({ ...consumer, leases: held }));
  }
}

/** A name without its end, if it is long. V8 keeps the whole of a long string for a slice of it. */
function shorten(name: string): string {
  return name.length > LIMITS.consumerChars ? Buffer.from(name.slice(0, LIMITS.consumerChars)).toString() : name;
}
