import type { Logger } from '@nestjs/common';
import { type PutQueueRequest, RowmqError } from '@rowmq/contract';
import type { BrokerClient, CallOptions } from '../broker-client.js';
import { mayPass } from '../http/broker-unreachable.error.js';
import { NO_RECEIPT } from '../http/no-receipt.js';
import { idle, jittered } from '../timers.js';
import { RowmqConfigurationError } from './rowmq-configuration.error.js';

/** A queue that an application uses, and whether to create it. */
export interface NeededQueue {
  /** 1 to 80 of the characters A-Z a-z 0-9 . _ - */
  name: string;
  /**
   * `true` or settings create the queue at boot if it is missing. An existing queue stays as it is.
   * Needs an API key with that right. By default a missing queue is an error.
   */
  create?: boolean | PutQueueRequest | undefined;
  /**
   * `true` also applies the settings of `create` to an existing queue, at every boot. That undoes
   * what an operator changed meanwhile.
   */
  update?: boolean | undefined;
}

/** The time for all checks at boot together. */
const CHECK_MS = 10_000;
/** The time to repeat one call at boot. Another broker may answer it. */
const REPEAT_SECONDS = 2;
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
   * Checks the queues, dead-letter queues before those that use them. If the broker is unreachable,
   * the check is repeated later and does not delay the start.
   * @throws RowmqConfigurationError for a queue that is missing, or that the broker refuses
   */
  async ensureAll(needed: readonly NeededQueue[]): Promise<void> {
    for (const queue of needed) assertComplete(queue);
    const queues = deadLetterQueuesFirst(needed);
    const deadline = AbortSignal.timeout(CHECK_MS);
    for (const [index, queue] of queues.entries()) {
      try {
        await this.#ensure(queue, { signal: deadline, retrySeconds: REPEAT_SECONDS });
      } catch (error) {
        if (!mayPass(error) && !deadline.aborted) throw asFault(queue, error);
        this.#logger.warn(`Queue '${queue.name}' could not be checked yet: ${String(error)}`);
        void this.#ensureLater(queues.slice(index));
        return;
      }
    }
  }

  /**
   * Repeats the checks until the broker answers each. It is too late to end the start, so a fault
   * is logged. Between the tries, the process may end: its start may have failed elsewhere. Never
   * rejects.
   */
  async #ensureLater(queues: readonly NeededQueue[]): Promise<void> {
    for (const queue of queues) {
      while (!this.#closing.aborted) {
        try {
          await this.#ensure(queue, { signal: this.#closing, retrySeconds: 0 });
          break;
        } catch (error) {
          if (!mayPass(error)) {
            if (!this.#closing.aborted) this.#logger.error(asFault(queue, error).message);
            break;
          }
          await idle(jittered(CHECK_AGAIN_MS), this.#closing);
        }
      }
    }
  }

  async #ensure({ name, create, update }: NeededQueue, options: CallOptions): Promise<void> {
    const settings = typeof create === 'object' ? create : {};
    if (update === true) await this.#client.putQueue(name, settings, options);
    else if (create) await this.#client.createQueue(name, settings, options);
    else await this.#client.ack(name, { receipts: [NO_RECEIPT] }, options);
  }
}

/** @throws RowmqConfigurationError for `update` without settings, which would change nothing */
export function assertComplete({ name, create, update }: NeededQueue): void {
  if (update !== true || typeof create === 'object') return;
  throw new RowmqConfigurationError(
    `Queue '${name}' has update: true but no settings: say create: { … }, or remove update.`,
  );
}

/** The queue that takes its dead letters, if its registration says so. */
function deadLetterQueueOf({ create }: NeededQueue): string | undefined {
  return typeof create === 'object' ? (create.deadLetterQueue ?? undefined) : undefined;
}

/** Each queue after its dead-letter queue. A circle has no such order: the broker refuses it. */
function deadLetterQueuesFirst(needed: readonly NeededQueue[]): NeededQueue[] {
  const byName = new Map(needed.map((queue) => [queue.name, queue]));
  const sorted = new Set<NeededQueue>();
  const visit = (queue: NeededQueue, users: readonly NeededQueue[]): void => {
    if (sorted.has(queue) || users.includes(queue)) return;
    const target = byName.get(deadLetterQueueOf(queue) ?? '');
    if (target !== undefined) visit(target, [...users, queue]);
    sorted.add(queue);
  };
  for (const queue of needed) visit(queue, []);
  return [...sorted];
}

function asFault({ name, create }: NeededQueue, error: unknown): RowmqConfigurationError {
  if (error instanceof RowmqError && error.code === 'queue-not-found') {
    return new RowmqConfigurationError(
      `Queue '${name}' does not exist: create it with PUT /v1/admin/queues/${name}, or use it with create: true.`,
      { cause: error },
    );
  }
  const deadLetterQueue = deadLetterQueueOf({ name, create });
  const hint =
    deadLetterQueue === undefined ? '' : ` Its registration names the dead-letter queue '${deadLetterQueue}'.`;
  return new RowmqConfigurationError(`Queue '${name}' cannot be used: ${(error as Error).message}${hint}`, {
    cause: error,
  });
}
