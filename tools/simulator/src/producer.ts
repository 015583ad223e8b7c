import type { EnqueueRequest } from '@rowmq/contract';
import { LedgerFullError } from './ledger.js';
import type { Pace } from './pace.js';
import { Payloads } from './payload.js';
import { Random } from './random.js';
import { backOff, failed, inFlight, now, type Run } from './run.js';

const SHORTEST_EXPIRY_SECONDS = 1;
const LONGEST_EXPIRY_SECONDS = 3;
/** Keeps the random choices of producers and consumers apart. */
const RANDOM_STREAM = 1_000_000;

/** Enqueues batch after batch, each as soon as the one before is answered, within the run's pace. */
export class Producer {
  readonly #run: Run;
  readonly #pace: Pace;
  readonly #random: Random;
  readonly #payloads: Payloads;

  constructor(run: Run, index: number, pace: Pace) {
    this.#run = run;
    this.#pace = pace;
    this.#random = new Random(run.settings.seed, RANDOM_STREAM + index);
    this.#payloads = new Payloads(this.#random, run.settings.bodyBytes.min, run.settings.bodyBytes.max);
  }

  /** Works until `stop`; answers why it stopped earlier, if it did. */
  async work(stop: AbortSignal): Promise<LedgerFullError | undefined> {
    while (!stop.aborted) {
      await this.#pace.next(this.#run.settings.batch, stop);
      if (stop.aborted) break;
      try {
        await this.#enqueue(stop);
      } catch (error) {
        if (error instanceof LedgerFullError) return error;
        throw error;
      }
    }
    return undefined;
  }

  async #enqueue(stop: AbortSignal): Promise<void> {
    const { ledger, meter, client, queues, settings } = this.#run;
    const queue = this.#random.between(0, queues.length - 1);
    const first = ledger.planBatch(settings.batch, queue);
    const request = this.#batch(first);
    const sentAt = now();
    ledger.enqueueSent(first, settings.batch, sentAt);
    try {
      const answer = await inFlight(this.#run, client.enqueue(queues[queue] ?? '', request));
      const answeredAt = now();
      if (answer.messages.length === settings.batch) {
        ledger.enqueueConfirmed(
          first,
          answer.messages.map(({ id }) => id),
          answeredAt,
        );
        meter.count('enqueued', settings.batch);
      } else meter.error('answer-incomplete');
      meter.time('enqueue', answeredAt - sentAt);
    } catch (error) {
      if (failed(this.#run, error) === 'nothing-done') ledger.enqueueRefused(first, settings.batch);
      await backOff(error, this.#random, stop);
    }
  }

  #batch(first: number): EnqueueRequest {
    const { ledger, settings, id } = this.#run;
    const messages = Array.from({ length: settings.batch }, (_, offset) => {
      const priority = this.#random.between(settings.priorities.min, settings.priorities.max);
      const { message, content } = this.#payloads.make(`${id}.${first + offset}`, priority);
      const expires = this.#random.happens(settings.expireRate);
      const expiresInSeconds = expires ? this.#random.between(SHORTEST_EXPIRY_SECONDS, LONGEST_EXPIRY_SECONDS) : 0;
      ledger.planMessage(first + offset, content, expiresInSeconds);
      return expires ? { ...message, expiresInSeconds } : message;
    });
    return { messages };
  }
}
