import type { EnqueueRequest } from '@rowmq/contract';
import type { Message } from './ledger.js';
import { Payloads } from './payload.js';
import { Random } from './random.js';
import { backOff, failed, inFlight, now, type Run } from './run.js';
import type { Throttle } from './throttle.js';

const SHORTEST_EXPIRY_SECONDS = 1;
const LONGEST_EXPIRY_SECONDS = 3;
/** Separates the random choices of producers from those of consumers. */
const RANDOM_STREAM = 1_000_000;

/** Enqueues batches and records each in the ledger. */
export class Producer {
  readonly #run: Run;
  readonly #throttle: Throttle;
  readonly #random: Random;
  readonly #payloads: Payloads;

  constructor(run: Run, index: number, throttle: Throttle) {
    this.#run = run;
    this.#throttle = throttle;
    this.#random = new Random(run.settings.seed, RANDOM_STREAM + index);
    this.#payloads = new Payloads(this.#random, run.settings.bodyBytes.min, run.settings.bodyBytes.max);
  }

  /**
   * Enqueues one batch when the throttle allows it, unless `stop` is aborted by then. Throws
   * `LedgerFullError`.
   */
  async round(stop: AbortSignal): Promise<void> {
    await this.#throttle.next(this.#run.settings.batch, stop);
    if (!stop.aborted) await this.#enqueue(stop);
  }

  async #enqueue(stop: AbortSignal): Promise<void> {
    const { ledger, meter, client, queues, settings } = this.#run;
    const queue = this.#random.between(0, queues.length - 1);
    const batch = ledger.planBatch(settings.batch, queue);
    const request = { messages: batch.map((message) => this.#fill(message)) };
    const sentAt = now();
    ledger.enqueueSent(batch, sentAt);
    try {
      const answer = await inFlight(this.#run, client.enqueue(queues[queue] ?? '', request));
      const answeredAt = now();
      const ids = answer.messages.map(({ id }) => id);
      if (ids.length === batch.length) {
        ledger.enqueueConfirmed(batch, ids, answeredAt);
        meter.count('enqueued', batch.length);
      } else meter.error('answer-incomplete');
      meter.time('enqueue', answeredAt - sentAt);
    } catch (error) {
      if (failed(this.#run, error) === 'nothing-done') ledger.enqueueRefused(batch);
      await backOff(error, this.#random, stop);
    }
  }

  /** Chooses a message's content and life. Returns the message as the request carries it. */
  #fill(planned: Message): EnqueueRequest['messages'][number] {
    const { settings, id } = this.#run;
    const priority = this.#random.between(settings.priorities.min, settings.priorities.max);
    const { message, content } = this.#payloads.make(`${id}.${planned.number}`, priority);
    Object.assign(planned, content);
    if (settings.groups > 0) {
      planned.group = this.#random.between(1, settings.groups);
      message.groupId = `group-${planned.group}`;
    }
    if (!this.#random.happens(settings.expireRate)) return message;
    planned.expiresInSeconds = this.#random.between(SHORTEST_EXPIRY_SECONDS, LONGEST_EXPIRY_SECONDS);
    return { ...message, expiresInSeconds: planned.expiresInSeconds };
  }
}
