import type { DequeueAnswer, LeasedMessage } from '@rowmq/contract';
import type { BrokerClient } from '../broker-client.js';
import { retryAfterMs } from '../http/broker-unreachable.error.js';
import { jittered, pause, turn } from '../timers.js';
import type { Tell } from './consumer-events.js';
import type { ConsumerSettings } from './consumer-options.js';
import { endedWith, takeNext } from './group-turns.js';
import type { Handling, RunningHandler } from './handling.js';
import { LeaseKeeper } from './lease-keeper.js';
import { Delivery, lifeAfterLeaseMs, type Settlement } from './message.js';
import { ConsumerStoppedError, LeaseLostError, Reject } from './outcomes.js';
import { Settler } from './settler.js';

const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 5000;
/**
 * A pause follows an empty answer that comes sooner: the queue is paused, or the broker does not
 * wait.
 */
const QUICK_ANSWER_MS = 1000;
/**
 * The time for a dequeue in flight to answer after a stop. Nobody else releases the messages of an
 * answer that has left the broker.
 */
const LAST_ANSWER_MS = 500;
/** The time for the broker to answer the last settlements after a stop. */
const FLUSH_DEADLINE_MS = 10_000;
/** This many unsettled messages delay the next dequeue, however small the consumer is. */
const UNSETTLED_AT_LEAST = 100;
/** The lease that a broker gives by default, in case it answers no settings. */
const DEFAULT_LEASE_SECONDS = 30;

/** The work of a consumer from a start to the next stop. */
export class ConsumerRun<T> {
  readonly #client: BrokerClient;
  readonly #queue: string;
  readonly #settings: ConsumerSettings;
  readonly #handling: Handling<T>;
  readonly #tell: Tell;
  readonly #keeper: LeaseKeeper;
  readonly #settler: Settler;
  readonly #stopping = new AbortController();
  /** Cancels the dequeue in flight. */
  #dequeue = new AbortController();
  /** Waiting for a handler. */
  readonly #buffer: Delivery[] = [];
  readonly #running = new Set<RunningHandler>();
  #handled = 0;
  #unsettled = 0;
  #isPaused = false;
  /** No handler became free in time for prefetched messages. None are prefetched until one does. */
  #isSlow = false;
  readonly #loop: Promise<void>;
  #stopped: Promise<void> | undefined;
  #notify: () => void = () => undefined;

  /** @param previous the run before this one, whose handlers must end first */
  constructor(
    client: BrokerClient,
    queue: string,
    settings: ConsumerSettings,
    handling: Handling<T>,
    tell: Tell,
    { previous, isPaused }: { previous: Promise<void> | undefined; isPaused: boolean },
  ) {
    this.#client = client;
    this.#queue = queue;
    this.#settings = settings;
    this.#handling = handling;
    this.#tell = tell;
    this.#isPaused = isPaused;
    this.#keeper = new LeaseKeeper(
      async (request, timeoutMs) => client.extend(queue, request, { timeoutMs, retrySeconds: 0 }),
      {
        onLost: (delivery) => this.#lost(delivery),
        onIdle: (deliveries) => {
          this.#isSlow = true;
          this.#release(deliveries);
        },
        onFailure: (error) => tell('extendFailed', error),
      },
    );
    this.#settler = new Settler(client, queue, {
      onDone: (delivery) => this.#done(delivery),
      onLost: (delivery) => tell('leaseLost', delivery.message),
      onFailure: (error, deliveries) => tell('settleFailed', error, deliveries.map(messageOf)),
      instead: (delivery, reason) => handling.nackWithBackoff(delivery, new Reject(reason)),
    });
    this.#loop = this.#run(previous);
  }

  get isStopping(): boolean {
    return this.#stopping.signal.aborted;
  }

  /** Messages held: those that wait for a handler, and those with one. */
  get inHand(): number {
    return this.#buffer.length + this.#handled;
  }

  /** Takes no more messages, and releases those that no handler has begun. */
  pause(): void {
    if (this.#isPaused) return;
    this.#isPaused = true;
    this.#release([...this.#buffer]);
    this.#giveUpDequeueSoon('The consumer was paused.');
  }

  resume(): void {
    this.#isPaused = false;
    this.#notify();
  }

  /** Idempotent; never rejects. */
  async stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #run(previous: Promise<void> | undefined): Promise<void> {
    await previous;
    let failures = 0;
    while (!this.isStopping) {
      const maxMessages = await this.#room();
      if (this.isStopping) break;
      const began = performance.now();
      const { signal } = (this.#dequeue = new AbortController());
      try {
        let sentAt = began;
        const answer = await this.#settler.dequeue(async (ack) => {
          sentAt = performance.now();
          return this.#ask(maxMessages, ack, signal);
        });
        failures = 0;
        this.#tell('dequeued', answer.messages.length);
        this.#accept(answer, sentAt);
        const took = performance.now() - began;
        // Handlers that are done within this turn of the event loop have their acks carried by the
        // next dequeue.
        if (answer.messages.length > 0) await turn();
        else if (took < QUICK_ANSWER_MS) await pause(QUICK_ANSWER_MS - took, this.#stopping.signal);
      } catch (error) {
        if (this.isStopping) break;
        if (signal.aborted) continue;
        const ownMs = jittered(Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** failures));
        const pauseMs = Math.max(ownMs, Math.min(LONGEST_PAUSE_MS, retryAfterMs(error)));
        failures += 1;
        this.#tell('dequeueFailed', error, pauseMs);
        await pause(pauseMs, this.#stopping.signal);
      }
    }
  }

  /** Sends a dequeue once. The loop repeats it, so that the first failure is told at once. */
  async #ask(maxMessages: number, ack: string[], signal: AbortSignal): Promise<DequeueAnswer> {
    const { waitSeconds, leaseSeconds } = this.#settings;
    const carried = { ...(leaseSeconds !== undefined && { leaseSeconds }), ...(ack.length > 0 && { ack }) };
    const request = { maxMessages, waitSeconds, withSettings: true, ...carried };
    return this.#client.dequeue(this.#queue, request, { signal, retrySeconds: 0 });
  }

  /** Waits until another dequeue is worth its cost. Returns for how many messages. */
  async #room(): Promise<number> {
    const { batchSize } = this.#settings;
    const isFull = () => {
      const { prefetch, capacity } = this.#limits();
      const worthIt = Math.max(1, Math.ceil(Math.min(prefetch, batchSize) / 2));
      return (
        capacity - this.inHand < worthIt || this.#unsettled - this.#handled >= Math.max(UNSETTLED_AT_LEAST, capacity)
      );
    };
    while ((this.#isPaused || isFull()) && !this.isStopping) {
      await new Promise<void>((resolve) => (this.#notify = resolve));
    }
    return Math.min(this.#limits().capacity - this.inHand, batchSize);
  }

  #limits(): { prefetch: number; capacity: number } {
    const { prefetch, capacity } = this.#settings;
    return this.#isSlow ? { prefetch: 0, capacity: capacity - prefetch } : { prefetch, capacity };
  }

  /**
   * The answer may have taken long on its way, or waited for acks, while the leases ran. So they
   * count from the earliest time at which they can have begun.
   */
  #accept({ messages, settings, waitedMs }: DequeueAnswer, sentAt: number): void {
    const receivedAt = performance.now();
    const leasedSince = Math.min(receivedAt, sentAt + (waitedMs ?? Infinity));
    const leaseSeconds = settings?.leaseSeconds ?? this.#settings.leaseSeconds ?? DEFAULT_LEASE_SECONDS;
    for (const message of messages) {
      const settle = (delivery: Delivery, settlement: Settlement): void => {
        this.#settler.add(delivery, settlement);
        for (const later of endedWith(delivery, settlement, this.#buffer)) this.#forget(later);
      };
      const delivery = new Delivery(message, settle, leaseSeconds, settings?.maxReceives ?? null);
      delivery.expiresBy = receivedAt + leaseSeconds * 1000 + lifeAfterLeaseMs(message);
      if (settings?.ordering === 'group') delivery.group = message.groupId;
      delivery.onListenerError = (error) => this.#tell('listenerFailed', 'abort', error);
      this.#unsettled += 1;
      this.#keeper.add(delivery, leasedSince);
      this.#buffer.push(delivery);
    }
    if (this.isStopping || this.#isPaused) this.#release([...this.#buffer]);
    this.#pump();
  }

  /** Passes waiting messages to free handlers. */
  #pump(): void {
    const { concurrency } = this.#settings;
    while (this.#running.size < concurrency) {
      const deliveries = this.#nextUnit();
      if (deliveries.length === 0) return;
      this.#handled += deliveries.length;
      const running = this.#handling.start(deliveries);
      this.#running.add(running);
      void running.ended.then(() => this.#ended(running));
    }
  }

  #ended(running: RunningHandler): void {
    this.#running.delete(running);
    this.#handled -= running.deliveries.length;
    this.#isSlow = false;
    this.#pump();
    this.#notify();
  }

  /**
   * Takes the messages of the next call of the handler. A message that expired meanwhile, or whose
   * lease ended, is not handled.
   */
  #nextUnit(): Delivery[] {
    const now = performance.now();
    const deliveries: Delivery[] = [];
    const expired: Delivery[] = [];
    while (deliveries.length < this.#settings.unit) {
      const delivery = takeNext(this.#buffer, this.#running);
      if (delivery === undefined) break;
      if (delivery.expiresBy <= now) expired.push(delivery);
      else if (delivery.leaseEndsAt <= now) this.#lost(delivery);
      else deliveries.push(delivery);
    }
    for (const delivery of deliveries) delivery.isBegun = true;
    for (const delivery of expired) {
      delivery.settle(RELEASED);
      this.#tell('expired', delivery.message);
    }
    return deliveries;
  }

  /** Releases those of these messages that no handler has begun. */
  #release(deliveries: readonly Delivery[]): void {
    const waiting = deliveries.filter(({ isBegun, isSettled }) => !isBegun && !isSettled);
    for (const delivery of waiting) {
      this.#unbuffer(delivery);
      delivery.settle(RELEASED);
    }
    if (waiting.length > 0) this.#tell('released', waiting.map(messageOf));
  }

  #unbuffer(delivery: Delivery): void {
    const index = this.#buffer.indexOf(delivery);
    if (index >= 0) this.#buffer.splice(index, 1);
  }

  /** The broker has ended its lease, with that of an earlier message of its group. */
  #forget(delivery: Delivery): void {
    if (delivery.isSettled) return;
    delivery.isSettled = true;
    this.#unbuffer(delivery);
    this.#done(delivery);
  }

  /** Aborts the signal of its handler, and no longer settles the outcome. */
  #lost(delivery: Delivery): void {
    if (delivery.isSettled) return;
    delivery.isSettled = true;
    this.#unbuffer(delivery);
    delivery.abort(new LeaseLostError(delivery.message.id));
    this.#tell('leaseLost', delivery.message);
    this.#done(delivery);
  }

  /** The consumer no longer holds it. */
  #done(delivery: Delivery): void {
    this.#keeper.delete(delivery);
    this.#unsettled -= 1;
    this.#notify();
  }

  /** Its answer may be on its way, and nobody else would release its messages. */
  #giveUpDequeueSoon(why: string): NodeJS.Timeout {
    const dequeue = this.#dequeue;
    return setTimeout(() => {
      if (this.isStopping || this.#isPaused) dequeue.abort(new ConsumerStoppedError(why));
    }, LAST_ANSWER_MS);
  }

  async #stop(): Promise<void> {
    this.#stopping.abort();
    this.#notify();
    this.#release([...this.#buffer]);
    const timer = this.#giveUpDequeueSoon('The consumer was stopped.');
    await this.#loop;
    clearTimeout(timer);
    await this.#finishHandlers();
    const flushed = new AbortController();
    const flush = this.#settler.flush().then(() => flushed.abort());
    await Promise.race([flush, pause(FLUSH_DEADLINE_MS, flushed.signal)]);
    this.#settler.close(new ConsumerStoppedError('The consumer was stopped, and the broker did not answer in time.'));
    this.#keeper.close();
  }

  /** Lets handlers finish until the deadline, then nacks their messages. */
  async #finishHandlers(): Promise<void> {
    const { shutdownSeconds } = this.#settings;
    const finished = new AbortController();
    const handlers = Promise.all([...this.#running].map(({ ended }) => ended)).then(() => finished.abort());
    await Promise.race([handlers, pause(shutdownSeconds * 1000, finished.signal)]);
    finished.abort();
    const why = `The consumer was stopped, and its handlers did not finish within ${shutdownSeconds} s.`;
    for (const { deliveries, abandon } of this.#running) {
      for (const delivery of deliveries) {
        delivery.settle({ verb: 'nack', delaySeconds: 0, reason: 'the consumer was stopped' });
        delivery.abort(new ConsumerStoppedError(why));
      }
      abandon();
    }
  }
}

const messageOf = ({ message }: Delivery): LeasedMessage => message;

const RELEASED: Settlement = { verb: 'release', delaySeconds: 0 };
