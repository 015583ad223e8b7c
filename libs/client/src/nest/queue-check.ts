import type { Logger } from '@nestjs/common';
import { type PutQueueRequest, RowmqError } from '@rowmq/contract';
import { setTimeout as sleep } from 'node:timers/promises';
import type { BrokerClient } from '../broker-client.js';
import { mayPass } from '../http/broker-unreachable.error.js';
import { RowmqConfigurationError } from './rowmq-configuration.error.js';

/** A queue that an application uses, and whether to create it. */
export interface NeededQueue {
  /** 1 to 80 of the characters A-Z a-z 0-9 . _ - */
  name: string;
  /**
   * `true` creates the queue at boot if it is missing. Settings are applied at every boot. Needs an
   * API key with that right. By default a missing queue is an error.
   */
  create?: boolean | PutQueueRequest | undefined;
}

/**
 * No broker ever gave this receipt. An ack of it tells with any API key whether the queue exists.
 */
const NO_RECEIPT = 'is-there-such-a-queue';
/** The time for all checks at boot together. */
const CHECK_MS = 10_000;
const CHECK_AGAIN_MS = 2000;

/** Makes sure at boot that the queues of an application exist. */
export class QueueCheck {
  readonly #client: BrokerClient;
  readonly #logger: Pick<Logger, 'warn' | 'error'>;
  readonly #closing: AbortSignal;

  constructor(
    client: BrokerClient,
    logger: Pick<Logger, 'warn' | 'error'>,
    /** Ends the checks that are left. */
    closing: AbortSignal,
  ) {
    this.#client = client;
    this.#logger = logger;
    this.#closing = closing;
  }

  /**
   * Checks the queues in the order given. If the broker is unreachable, the check is repeated later
   * and does not delay the start.
   * @throws RowmqConfigurationError for a queue that is missing, or that the broker refuses
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
