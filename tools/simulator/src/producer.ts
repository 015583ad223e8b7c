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

  /** Enqueues a batch to one of the queues, or publishes it to all. */
  async #enqueue(stop: AbortSignal): Promise<void> {
    const { ledger, meter, client, queues, settings, topic } = this.#run;
    const queue = this.#random.between(0, queues.length - 1);
    const targets = topic === undefined ? [queue] : [...queues.keys()];
    const batch = ledger.planBatch(settings.batch, targets);
    const messages = Array.from({ length: settings.batch }, (_, index) =>
      this.#fill(batch.slice(index * targets.length, (index + 1) * targets.length)),
    );
    const sentAt = now();
    ledger.enqueueSent(batch, sentAt);
    try {
      const call =
        topic === undefined ? client.enqueue(queues[queue] ?? '', { messages }) : client.publish(topic, { messages });
      const answer = await inFlight<{ messages: { id: string }[] }>(this.#run, call);
      const answeredAt = now();
      const ids = answer.messages.flatMap(({ id }) => targets.map(() => id));
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

  /**
   * Chooses the content and life of a message for each of its queues. Returns it as the request
   * carries it.
   */
  #fill(planned: readonly Message[]): EnqueueRequest['messages'][number] {
    const { settings, id } = this.#run;
    const priority = this.#random.between(settings.priorities.min, settings.priorities.max);
    const { message, content } = this.#payloads.make(`${id}.${planned[0]?.number}`, priority);
    const chosen: Partial<Message> = content;
    if (settings.groups > 0) {
      chosen.group = this.#random.between(1, settings.groups);
      message.groupId = `group-${chosen.group}`;
    }
    if (this.#random.happens(settings.expireRate)) {
      chosen.expiresInSeconds = this.#random.between(SHORTEST_EXPIRY_SECONDS, LONGEST_EXPIRY_SECONDS);
      message.expiresInSeconds = chosen.expiresInSeconds;
    }
    for (const one of planned) Object.assign(one, chosen);
    return message;
  }
}
