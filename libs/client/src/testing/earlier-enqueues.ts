import { type EnqueueAnswer, RowmqError } from '@rowmq/contract';

/** A message as the answer has it. */
interface First {
  id: string;
  /** The number of queues that got a published message. */
  subscriptions?: number;
}

interface Deduplicated extends First {
  deduplicationId?: string | undefined;
}

interface Use<What> {
  what: What;
  /** When it is forgotten, in ms since 1970. */
  until: number;
}

/**
 * The deduplicationIds and Idempotency-Keys that queues or topics remember. `InMemoryBroker` and
 * the model answer repeats by it.
 */
export class EarlierEnqueues<Answer = EnqueueAnswer> {
  /** The first message with each deduplicationId. */
  readonly #messages = new Map<string, Use<First>>();
  /** The request with each Idempotency-Key, as text, and its answer. */
  readonly #requests = new Map<string, Use<{ request: string; answer: Answer }>>();

  /**
   * For each message of a request, the first message with its deduplicationId: one that the queue
   * remembers, or an earlier one of the request. Undefined: the message is to be stored.
   */
  firsts(queue: string, messages: readonly Deduplicated[], now: number): (First | undefined)[] {
    const own = new Map<string, First>();
    return messages.map((message) => {
      const { deduplicationId } = message;
      if (deduplicationId === undefined) return undefined;
      const first = live(this.#messages, nameOf(queue, deduplicationId), now) ?? own.get(deduplicationId);
      if (first === undefined) own.set(deduplicationId, message);
      return first;
    });
  }

  /** These messages were stored. */
  rememberMessages(queue: string, messages: readonly Deduplicated[], now: number, seconds: number): void {
    for (const { id, subscriptions = 1, deduplicationId } of messages) {
      if (deduplicationId === undefined) continue;
      remember(this.#messages, nameOf(queue, deduplicationId), { id, subscriptions }, now, seconds);
    }
  }

  /**
   * The answer to the first request with this key, if the queue remembers one. Throws
   * `idempotency-key-reused` if the first was another request.
   */
  answer(queue: string, key: string, request: string, now: number): Answer | undefined {
    const first = live(this.#requests, nameOf(queue, key), now);
    if (first !== undefined && first.request !== request) {
      throw new RowmqError(
        'idempotency-key-reused',
        `The Idempotency-Key belongs to another request to '${queue}'; make a new one for each request.`,
      );
    }
    return first?.answer;
  }

  rememberAnswer(
    queue: string,
    key: string,
    what: { request: string; answer: Answer },
    now: number,
    seconds: number,
  ): void {
    remember(this.#requests, nameOf(queue, key), what, now, seconds);
  }

  /** A deleted queue's successor knows nothing of it. */
  forget(queue: string): void {
    for (const uses of [this.#messages, this.#requests]) {
      for (const name of uses.keys()) if (name.startsWith(`${queue}/`)) uses.delete(name);
    }
  }
}

/** No queue's or topic's name has a slash. */
function nameOf(queue: string, text: string): string {
  return `${queue}/${text}`;
}

function live<What>(uses: ReadonlyMap<string, Use<What>>, name: string, now: number): What | undefined {
  const use = uses.get(name);
  return use !== undefined && use.until > now ? use.what : undefined;
}

/** Also drops the oldest uses that are forgotten, so that they do not pile up. */
function remember<What>(uses: Map<string, Use<What>>, name: string, what: What, now: number, seconds: number): void {
  uses.delete(name);
  uses.set(name, { what, until: now + seconds * 1000 });
  for (const [oldest, { until }] of uses) {
    if (until > now) break;
    uses.delete(oldest);
  }
}
