import { type DequeueAnswer, type FailedReceipt, LIMITS, RowmqError } from '@rowmq/contract';
import pLimit from 'p-limit';
import type { BrokerClient } from '../broker-client.js';
import { isOutcomeUnknown, mayPass } from '../http/broker-unreachable.error.js';
import { CarriedAcks } from './carried-acks.js';
import { jittered, pause, turn } from '../timers.js';
import type { Delivery, Settlement } from './message.js';

/** Deliveries with the same settlement. */
interface Group {
  settlement: Settlement;
  deliveries: Delivery[];
}

export interface SettlerEvents {
  /** The broker has answered for it, or its lease has ended. The consumer no longer holds it. */
  onDone(delivery: Delivery): void;
  /** The lease had been lost before. */
  onLost(delivery: Delivery): void;
  /**
   * These were not settled: their leases end, and they come again. An empty list: the queue has no
   * dead-letter queue, and the settler used `instead`.
   */
  onFailure(error: unknown, deliveries: readonly Delivery[]): void;
  /** The settlement that replaces a refused reject. */
  instead(delivery: Delivery, reason: string | undefined): Settlement;
}

/** The pause before a failed settlement is sent again. It doubles with each failure in a row. */
const AGAIN_AFTER_MS = 250;
const LONGEST_AGAIN_AFTER_MS = 5000;
/**
 * Requests in flight per sender. Nacks have a reason or a delay each of their own, and may be many.
 */
const REQUESTS_AT_ONCE = 4;
const ACK: Settlement = { verb: 'ack' };

/**
 * Sends settlements to the broker, many with one request. While requests are in flight, further
 * settlements collect for the next. No handler waits for it, and acks wait for nothing else. A
 * dequeue takes the acks along that have not been sent yet.
 */
export class Settler {
  readonly #acks: Sender;
  readonly #others: Sender;
  readonly #carried: CarriedAcks;
  readonly #closed = new AbortController();
  /** Failures since the last answer. */
  #failures = 0;

  readonly #client: BrokerClient;
  readonly #queue: string;
  readonly #events: SettlerEvents;

  constructor(client: BrokerClient, queue: string, events: SettlerEvents) {
    this.#client = client;
    this.#queue = queue;
    this.#events = events;
    this.#acks = new Sender((group) => this.#send(group));
    this.#others = new Sender((group) => this.#send(group));
    this.#carried = new CarriedAcks({
      onAnswer: (deliveries, failed) => this.#answered(deliveries, failed),
      onFailure: (error, deliveries) => this.#afterFailure(error, ACK, deliveries),
      onGivenUp: (deliveries) => {
        for (const delivery of deliveries) this.add(delivery, ACK);
      },
    });
  }

  add(delivery: Delivery, settlement: Settlement): void {
    (settlement.verb === 'ack' ? this.#acks : this.#others).add(delivery, settlement);
  }

  /**
   * Sends a dequeue, with the receipts of acks that have not been sent yet. Returns its answer, or
   * throws its failure.
   */
  dequeue(send: (receipts: string[]) => Promise<DequeueAnswer>): Promise<DequeueAnswer> {
    return this.#carried.send(this.#acks.take(ACK, LIMITS.batch), send);
  }

  /** Resolves when the broker has answered for everything settled so far. Never rejects. */
  async flush(): Promise<void> {
    await this.#carried.flush();
    await Promise.all([this.#acks.flush(), this.#others.flush()]);
  }

  /** Stops retrying. Deliveries that are not settled yet are reported as failures. */
  close(reason: Error): void {
    this.#closed.abort(reason);
  }

  /** Never rejects. */
  async #send({ settlement, deliveries }: Group): Promise<void> {
    try {
      this.#answered(deliveries, await this.#ask(settlement, deliveries));
    } catch (error) {
      await this.#afterFailure(error, settlement, deliveries);
    }
  }

  #answered(deliveries: readonly Delivery[], failed: readonly FailedReceipt[]): void {
    this.#failures = 0;
    const codes = new Map(failed.map(({ receipt, code }) => [receipt, code]));
    for (const delivery of deliveries) {
      // A delivery that is not found was settled by a try whose answer was lost, or is over in
      // another way.
      if (codes.get(delivery.message.receipt) === 'lease-lost') this.#events.onLost(delivery);
      this.#events.onDone(delivery);
    }
  }

  async #afterFailure(error: unknown, settlement: Settlement, deliveries: readonly Delivery[]): Promise<void> {
    if (settlement.verb === 'reject' && error instanceof RowmqError && error.code === 'invalid-request') {
      for (const delivery of deliveries) this.add(delivery, this.#events.instead(delivery, settlement.reason));
      this.#events.onFailure(error, []);
      return;
    }
    const now = performance.now();
    // A repeat of what was carried out changes nothing.
    const mayHelp = mayPass(error) || isOutcomeUnknown(error);
    const held = mayHelp ? deliveries.filter(({ leaseEndsAt }) => leaseEndsAt > now) : [];
    this.#giveUp(
      error,
      deliveries.filter((delivery) => !held.includes(delivery)),
    );
    if (held.length === 0) return;
    await this.#pause();
    if (this.#closed.signal.aborted) this.#giveUp(error, held);
    else for (const delivery of held) this.add(delivery, settlement);
  }

  async #pause(): Promise<void> {
    const ms = Math.min(LONGEST_AGAIN_AFTER_MS, AGAIN_AFTER_MS * 2 ** this.#failures);
    this.#failures += 1;
    await pause(jittered(ms), this.#closed.signal);
  }

  #giveUp(error: unknown, deliveries: readonly Delivery[]): void {
    if (deliveries.length === 0) return;
    this.#events.onFailure(error, deliveries);
    for (const delivery of deliveries) this.#events.onDone(delivery);
  }

  /** Returns the receipts that failed. */
  async #ask(settlement: Settlement, deliveries: readonly Delivery[]): Promise<FailedReceipt[]> {
    const receipts = deliveries.map(({ message }) => message.receipt);
    const options = { signal: this.#closed.signal, retrySeconds: 0 };
    if (settlement.verb === 'ack') return (await this.#client.ack(this.#queue, { receipts }, options)).failed;
    const { reason } = settlement;
    const how = settlement.verb === 'reject' ? { deadLetter: true } : { delaySeconds: settlement.delaySeconds };
    const request = { receipts, ...how, ...(reason && { reason }) };
    const answer =
      settlement.verb === 'release'
        ? this.#client.release(this.#queue, request, options)
        : this.#client.nack(this.#queue, request, options);
    return (await answer).failed;
  }
}

/** Collects settlements, and sends them round by round. */
class Sender {
  readonly #limit = pLimit(REQUESTS_AT_ONCE);
  #groups = new Map<string, Group>();
  #working: Promise<void> | undefined;

  readonly #send: (group: Group) => Promise<void>;

  /** @param send never rejects */
  constructor(send: (group: Group) => Promise<void>) {
    this.#send = send;
  }

  add(delivery: Delivery, settlement: Settlement): void {
    const key = JSON.stringify(settlement);
    const group = this.#groups.get(key);
    if (group === undefined) this.#groups.set(key, { settlement, deliveries: [delivery] });
    else group.deliveries.push(delivery);
    this.#working ??= this.#work();
  }

  /** Takes up to `most` deliveries with this settlement that have not been sent yet. */
  take(settlement: Settlement, most: number): Delivery[] {
    const key = JSON.stringify(settlement);
    const group = this.#groups.get(key);
    if (group === undefined) return [];
    const taken = group.deliveries.splice(0, most);
    if (group.deliveries.length === 0) this.#groups.delete(key);
    return taken;
  }

  async flush(): Promise<void> {
    while (this.#working !== undefined) await this.#working;
  }

  async #work(): Promise<void> {
    // Settlements of the same turn of the event loop share a request.
    await turn();
    while (this.#groups.size > 0) {
      const groups = [...this.#groups.values()].flatMap(requests);
      this.#groups = new Map();
      await Promise.all(groups.map((group) => this.#limit(() => this.#send(group))));
    }
    this.#working = undefined;
  }
}

function requests({ settlement, deliveries }: Group): Group[] {
  const count = Math.ceil(deliveries.length / LIMITS.batch);
  return Array.from({ length: count }, (_, index) => ({
    settlement,
    deliveries: deliveries.slice(index * LIMITS.batch, (index + 1) * LIMITS.batch),
  }));
}
