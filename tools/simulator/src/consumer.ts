import type { LeasedMessage } from '@rowmq/contract';
import { Faults, type DequeueFate } from './faults.js';
import type { Message } from './ledger.js';
import { contentOf, KEY_HEADER } from './payload.js';
import { Random } from './random.js';
import { backOff, failed, inFlight, now, pause, type Run } from './run.js';
import { extendLeases, settleLeases, type HeldLease } from './settle.js';

/**
 * At most so many slow handlers at a time. They run beside the consumer's own loop, so that they do
 * not stop the traffic that they are meant to disturb.
 */
const SLOW_AT_ONCE = 4;

/** Dequeues, handles and settles, and misbehaves as its {@link Faults} decide. */
export class Consumer {
  readonly faults: Faults;
  readonly #run: Run;
  readonly #index: number;
  readonly #random: Random;
  readonly #slow = new Set<Promise<void>>();
  #queue: number;
  /** Empty dequeues in a row. */
  #empty = 0;
  /** A slow handler's error, if it had one. */
  #fault: Error | undefined;

  constructor(run: Run, index: number) {
    this.#run = run;
    this.#index = index;
    this.#random = new Random(run.settings.seed, index);
    this.faults = new Faults(this.#random, run.settings);
    this.#queue = this.#random.between(0, run.queues.length - 1);
  }

  /**
   * Waits for the slow handlers. After a failure of the run they handle no more. Throws what a slow
   * handler threw.
   */
  async finish(): Promise<void> {
    await Promise.all(this.#slow);
    if (this.#fault !== undefined) throw this.#fault;
  }

  /** One dequeue, and what follows from its answer. Throws what a slow handler threw before. */
  async round(stop: AbortSignal): Promise<void> {
    if (this.#fault !== undefined) throw this.#fault;
    const { settings, meter } = this.#run;
    const queue = this.#queue;
    const fate = this.faults.dequeueFate();
    const leases = await this.#dequeue(queue, fate, stop);
    this.#chooseQueue(leases.length > 0);
    if (leases.length === 0) return;
    if (fate === 'vanish') {
      meter.count('vanished', leases.length);
      return;
    }
    if ((fate === 'slow' || fate === 'slowExtending') && this.#slow.size < SLOW_AT_ONCE) {
      meter.count('slow', leases.length);
      this.#beginSlowly(queue, leases, fate, settings.leaseSeconds * 1000 * this.faults.slowness());
      return;
    }
    await this.#settle(queue, leases);
  }

  /**
   * After an empty dequeue, the next queue has its turn; otherwise any. A dequeue waits only after
   * all queues were empty, so that no full queue is left alone.
   */
  #chooseQueue(found: boolean): void {
    const { length } = this.#run.queues;
    this.#queue = found ? this.#random.between(0, length - 1) : (this.#queue + 1) % length;
    this.#empty = found ? 0 : (this.#empty + 1) % length;
  }

  async #dequeue(queue: number, fate: DequeueFate, stop: AbortSignal): Promise<HeldLease[]> {
    const { client, settings, meter, ledger, queues } = this.#run;
    const { batch: maxMessages, leaseSeconds } = settings;
    const waitSeconds = this.#empty === queues.length - 1 ? settings.waitSeconds : 0;
    const request = { maxMessages, waitSeconds, leaseSeconds };
    const hangUp = fate === 'hangUp' ? new AbortController() : undefined;
    const timer = hangUp && setTimeout(() => hangUp.abort(), this.faults.hangUpAfterMs(waitSeconds));
    const signal = hangUp?.signal ?? stop;
    const askedAt = now();
    try {
      const answer = await inFlight(this.#run, client.dequeue(queues[queue] ?? '', request, { signal }));
      const receivedAt = now();
      if (answer.messages.length > 0) meter.time('dequeue', receivedAt - askedAt);
      meter.count('dequeued', answer.messages.length);
      ledger.dequeueAnswered({ queue, askedAt, endedAt: receivedAt }, leaseSeconds * 1000);
      return answer.messages.flatMap((message) => this.#take(message, queue, askedAt, receivedAt));
    } catch (error) {
      const endedAt = now();
      if (signal.aborted) {
        ledger.dequeueUnanswered({ queue, askedAt, endedAt });
        if (hangUp !== undefined) meter.count('hungUp');
        return [];
      }
      if (failed(this.#run, error) === 'unknown') ledger.dequeueUnanswered({ queue, askedAt, endedAt });
      await backOff(error, this.#random, stop);
      return [];
    } finally {
      clearTimeout(timer);
    }
  }

  /** Records a delivery. Returns its lease, or nothing for a message that is not of this run. */
  #take(leased: LeasedMessage, queue: number, askedAt: number, receivedAt: number): HeldLease[] {
    const { ledger, meter, settings } = this.#run;
    const message = this.#messageOf(leased, queue);
    if (message === undefined) {
      ledger.found('stranger', `queue ${queue + 1} delivered ${leased.id}, which this run never enqueued`);
      return [];
    }
    const again = leased.receiveCount > 1 || message.leases.length > 0;
    if (again) meter.count('redelivered');
    else meter.time('endToEnd', receivedAt - message.sentAt);
    const lease = ledger.handedOut({
      message,
      queue,
      id: leased.id,
      consumer: this.#index,
      content: contentOf(leased),
      receiveCount: leased.receiveCount,
      leaseMs: settings.leaseSeconds * 1000,
      leaseExpiresOnDatabase: Date.parse(leased.leaseExpiresAt),
      expiresOnDatabase: Date.parse(leased.expiresAt),
      askedAt,
      receivedAt,
    });
    return [{ lease, receipt: leased.receipt }];
  }

  /** Finds a message by the key in its headers, or by its id if they were damaged. */
  #messageOf(leased: LeasedMessage, queue: number): Message | undefined {
    const { id, ledger, settings } = this.#run;
    const [run, number] = (leased.headers[KEY_HEADER] ?? '').split('.');
    // A published message has a number for each queue, and its key has the first.
    const keyed = run === id ? ledger.messageOf(Number(number) + (settings.topic ? queue : 0)) : undefined;
    return keyed ?? ledger.findById(leased.id, queue);
  }

  #beginSlowly(queue: number, leases: HeldLease[], fate: DequeueFate, forMs: number): void {
    const handler = this.#handleSlowly(queue, leases, fate, forMs)
      .catch((error: unknown) => {
        this.#fault ??= error instanceof Error ? error : new Error(String(error));
      })
      .finally(() => this.#slow.delete(handler));
    this.#slow.add(handler);
  }

  async #handleSlowly(queue: number, leases: HeldLease[], fate: DequeueFate, forMs: number): Promise<void> {
    if (fate === 'slowExtending') await this.#settle(queue, await this.#extendFor(queue, leases, forMs));
    else {
      await pause(forMs, this.#run.failure.signal);
      await this.#settle(queue, leases);
    }
  }

  /** Extends three times per lease. Returns the leases that are still held at the end. */
  async #extendFor(queue: number, leases: HeldLease[], forMs: number): Promise<HeldLease[]> {
    const stepMs = (this.#run.settings.leaseSeconds * 1000) / 3;
    let held = leases;
    for (let leftMs = forMs; leftMs > 0 && held.length > 0; leftMs -= stepMs) {
      await pause(stepMs, this.#run.failure.signal);
      held = await extendLeases(this.#run, queue, held);
    }
    return held;
  }

  async #settle(queue: number, leases: readonly HeldLease[]): Promise<void> {
    const byDelay = new Map<number | undefined, HeldLease[]>();
    /** By group. A nack also ends the leases of all later messages of the group. */
    const nacked = new Map<number, number>();
    for (const lease of leases) {
      const { group } = lease.lease.message;
      const delaySeconds = nacked.get(group) ?? this.faults.nackDelaySeconds();
      if (group > 0 && delaySeconds !== undefined) nacked.set(group, delaySeconds);
      byDelay.set(delaySeconds, [...(byDelay.get(delaySeconds) ?? []), lease]);
    }
    for (const [delaySeconds, group] of byDelay) {
      await settleLeases(this.#run, queue, group, delaySeconds);
    }
  }
}
