import { setTimeout as sleep } from 'node:timers/promises';
import { mayPass, type RowmqHttpClient } from '@rowmq/client/core';
import { eventually } from './wait.js';

const EVERY_MS = 50;
const CALL_DEADLINE_MS = 2000;
/** The maximum of concurrent rounds. Each ends by its calls' deadlines. */
const MOST_UNDER_WAY = 100;
/** The number of rounds to remember: at least half an hour's. */
const MOST_REMEMBERED = 80_000;
/** A message that a broken round leaves behind comes back soon, and expires within a minute. */
const QUEUE = { leaseSeconds: 5, messageTtlSeconds: 60 };

interface Round {
  /** By `performance.now()`. */
  began: number;
  ended: number;
}

/**
 * Measures the service that a client sees. Every 50 ms, or as told, it begins a round trip:
 * enqueue, dequeue and ack of one small message. It does not wait for earlier round trips, and
 * remembers the successful ones. Its client must not retry, because retries would hide the delay of
 * a broker.
 */
export class Prober {
  readonly #client: RowmqHttpClient;
  readonly #queue: string;
  readonly #stopping = new AbortController();
  readonly #underWay = new Set<Promise<void>>();
  readonly #succeeded: Round[] = [];
  #running: Promise<void> = Promise.resolve();
  #unexpected: unknown;

  private constructor(
    client: RowmqHttpClient,
    queue: string,
    private readonly everyMs: number,
  ) {
    this.#client = client;
    this.#queue = queue;
  }

  /**
   * Creates or changes the queue, which nobody else may use, and starts. Throws if the broker
   * refuses the queue.
   */
  static async start(client: RowmqHttpClient, queue: string, { everyMs = EVERY_MS } = {}): Promise<Prober> {
    await client.putQueue(queue, QUEUE);
    const prober = new Prober(client, queue, everyMs);
    prober.#running = prober.#run();
    return prober;
  }

  /**
   * Milliseconds from `at`, by `performance.now()`, to the end of the first successful round trip
   * that began after it. Undefined if there is none yet.
   */
  gapAfter(at: number): number | undefined {
    const ends = this.#succeeded.filter(({ began }) => began > at).map(({ ended }) => ended);
    return ends.length === 0 ? undefined : Math.min(...ends) - at;
  }

  /**
   * Waits for that round trip. Throws at the deadline, or after a call that failed for a permanent
   * reason.
   */
  async recovered(at: number, deadlineMs: number): Promise<number> {
    return eventually(
      'a message enqueued, dequeued and acked',
      () => {
        this.#throwUnexpected();
        return this.gapAfter(at);
      },
      deadlineMs,
    );
  }

  /**
   * The longest time without the end of a round trip, between `from` and `until` by
   * `performance.now()`.
   */
  longestGap(from: number, until: number): number {
    const ends = this.#succeeded.map(({ ended }) => ended).filter((ended) => ended > from && ended < until);
    const marks = [from, ...ends.toSorted((one, other) => one - other), until];
    return Math.max(...marks.slice(1).map((mark, index) => mark - (marks[index] as number)));
  }

  /**
   * Stops, and waits for the round trips in flight. Throws if a call failed for a permanent reason.
   * Idempotent.
   */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
    await Promise.all(this.#underWay);
    this.#throwUnexpected();
  }

  async #run(): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      if (this.#underWay.size < MOST_UNDER_WAY) this.#begin();
      await sleep(this.everyMs, undefined, { signal: this.#stopping.signal }).catch(() => undefined);
    }
  }

  #begin(): void {
    const round = this.#roundTrip()
      .catch((error: unknown) => {
        if (!mayPass(error)) this.#unexpected ??= error;
      })
      .finally(() => this.#underWay.delete(round));
    this.#underWay.add(round);
  }

  async #roundTrip(): Promise<void> {
    const began = performance.now();
    const options = { timeoutMs: CALL_DEADLINE_MS };
    await this.#client.enqueue(this.#queue, { messages: [{ body: 'probe' }] }, options);
    // Any round's message will do: the other round finds this one's.
    const { messages } = await this.#client.dequeue(this.#queue, { maxMessages: 1, waitSeconds: 1 }, options);
    const receipts = messages.map(({ receipt }) => receipt);
    if (receipts.length === 0) return;
    const { acked } = await this.#client.ack(this.#queue, { receipts }, options);
    if (acked.length === 0) return;
    this.#succeeded.push({ began, ended: performance.now() });
    if (this.#succeeded.length > MOST_REMEMBERED) this.#succeeded.splice(0, MOST_REMEMBERED / 2);
  }

  #throwUnexpected(): void {
    if (this.#unexpected !== undefined) throw this.#unexpected;
  }
}
