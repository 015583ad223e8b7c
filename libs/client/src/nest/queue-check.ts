import type { Logger } from '@nestjs/common';
import { type PutQueueRequest, RowmqError } from '@rowmq/contract';
import { setTimeout as sleep } from 'node:timers/promises';
import type { BrokerClient } from '../broker-client.js';
import { mayPass } from '../http/broker-unreachable.error.js';
import { RowmqConfigurationError } from './rowmq-configuration.error.js';

/** A queue that an application uses, and whether it is to be created. */
export interface NeededQueue {
  /** 1 to 80 of the characters A-Z a-z 0-9 . _ - */
  name: string;
  /** `true` creates the queue at boot if there is none; settings are given to it at every boot, whether it was there or not. Needs an API key that may. Default: a queue that does not exist is a fault. */
  create?: boolean | PutQueueRequest | undefined;
}

/** No receipt that a broker ever gave: asking about it tells whether there is such a queue, with any API key. */
const NO_RECEIPT = 'is-there-such-a-queue';
/** For all checks at boot together. */
const CHECK_MS = 10_000;
const CHECK_AGAIN_MS = 2000;

/** Makes sure, when an application starts, that the queues it uses are there. */
export class QueueCheck {
  readonly #client: BrokerClient;
  readonly #logger: Pick<Logger, 'warn' | 'error'>;
  readonly #closing: AbortSignal;

  constructor(
    client: BrokerClient,
    logger: Pick<Logger, 'warn' | 'error'>,
    /** Ends what is still to be done. */
    closing: AbortSignal,
  ) {
    this.#client = client;
    this.#logger = logger;
    this.#closing = closing;
  }

  /**
   * In the order given. What cannot be done because the broker is away is done when it is back, and does not hold up the start.
   * @throws RowmqConfigurationError for a queue that is not there, or that the broker refuses
   */
  async ensureAll(queues: readonly NeededQueue[]): Promise<void> {
    const deadline = AbortSignal.timeout(CHECK_MS);
    for (const [index, queue] of queues.entries()) {
      try {
        await this.#ensure(queue, deadline);
      } catch (error) {
        if (!mayPass(error) && !deadline.aborted) throw asFault(queue, error);
        this.#logger.warn(`Queue '${queue.name}' could not be checked yet: ${String(error)}`);
        void this.#ensureLater(queues.slice(index).filter(({ create }) => create));
        return;
      }
    }
  }

  /** Never rejects. */
  async #ensureLater(queues: readonly NeededQueue[]): Promise<void> {
    for (const queue of queues) {
      while (!this.#closing.aborted) {
        try {
          await this.#ensure(queue, this.#closing);
          break;
        } catch (error) {
          if (!mayPass(error)) {
            if (!this.#closing.aborted) this.#logger.error(asFault(queue, error).message);
            break;
          }
          await sleep(CHECK_AGAIN_MS, undefined, { signal: this.#closing }).catch(() => undefined);
        }
      }
    }
  }

  async #ensure({ name, create }: NeededQueue, signal: AbortSignal): Promise<void> {
    if (typeof create === 'object') {
      await this.#client.putQueue(name, create, { signal });
      return;
    }
    try {
      await this.#client.ack(name, { receipts: [NO_RECEIPT] }, { signal });
    } catch (error) {
      if (!create || !(error instanceof RowmqError) || error.code !== 'queue-not-found') throw error;
      await this.#client.putQueue(name, {}, { signal });
    }
  }
}

function asFault({ name }: NeededQueue, error: unknown): RowmqConfigurationError {
  if (error instanceof RowmqError && error.code === 'queue-not-found') {
    return new RowmqConfigurationError(
      `Queue '${name}' does not exist: create it with PUT /v1/admin/queues/${name}, or use it with create: true.`,
      { cause: error },
    );
  }
  return new RowmqConfigurationError(`Queue '${name}' cannot be used: ${(error as Error).message}`, { cause: error });
}
