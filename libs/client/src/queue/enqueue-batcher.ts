import { type EnqueueRequest, LIMITS, RowmqError } from '@rowmq/contract';
import type { BrokerClient } from '../broker-client.js';
import { turn } from '../timers.js';

type NewMessage = EnqueueRequest['messages'][number];

/** Messages that are stored together, all or none. */
interface Unit {
  messages: readonly NewMessage[];
  resolve: (ids: string[]) => void;
  reject: (error: unknown) => void;
}

/** Messages that wait for their request or for its answer, at most. */
const MOST_MESSAGES = 10_000;

/** Errors for which one caller of a shared request may be to blame. */
const MAY_BE_ONE = new Set<string>(['invalid-request', 'message-too-large', 'queue-full']);

/** Collects the enqueues of one turn of the event loop into requests of up to 100 messages. */
export class EnqueueBatcher {
  #units: Unit[] = [];
  #messages = 0;
  /** Calls that wait for room, in their order. */
  readonly #waiting: { count: number; enter: () => void }[] = [];

  readonly #client: BrokerClient;
  readonly #queue: string;

  constructor(client: BrokerClient, queue: string) {
    this.#client = client;
    this.#queue = queue;
  }

  /**
   * Stores 1 to 100 messages, all or none. Returns their ids once they are durable. While 10,000
   * messages wait for an answer, further calls wait for room, in their order. Throws the client's
   * errors.
   */
  async enqueue(messages: readonly NewMessage[]): Promise<string[]> {
    if (this.#waiting.length > 0 || this.#isFullFor(messages.length)) await this.#room(messages.length);
    else this.#messages += messages.length;
    try {
      return await new Promise<string[]>((resolve, reject) => {
        if (this.#units.length === 0) void turn().then(() => this.#send());
        this.#units.push({ messages, resolve, reject });
      });
    } finally {
      this.#messages -= messages.length;
      this.#letIn();
    }
  }

  #isFullFor(count: number): boolean {
    return this.#messages + count > MOST_MESSAGES;
  }

  /** Resolves when the messages are counted among those that wait for an answer. */
  async #room(count: number): Promise<void> {
    await new Promise<void>((enter) => this.#waiting.push({ count, enter }));
  }

  #letIn(): void {
    for (let next = this.#waiting[0]; next !== undefined && !this.#isFullFor(next.count); next = this.#waiting[0]) {
      this.#waiting.shift();
      this.#messages += next.count;
      next.enter();
    }
  }

  #send(): void {
    let request: Unit[] = [];
    let size = 0;
    for (const unit of this.#units.splice(0)) {
      if (size + unit.messages.length > LIMITS.batch) {
        void this.#carryOut(request);
        [request, size] = [[], 0];
      }
      request.push(unit);
      size += unit.messages.length;
    }
    void this.#carryOut(request);
  }

  /** Never rejects. */
  async #carryOut(units: readonly Unit[]): Promise<void> {
    try {
      const { messages } = await this.#client.enqueue(this.#queue, {
        messages: units.flatMap((unit) => unit.messages),
      });
      let first = 0;
      for (const unit of units) {
        unit.resolve(messages.slice(first, first + unit.messages.length).map(({ id }) => id));
        first += unit.messages.length;
      }
    } catch (error) {
      // Nothing was stored, and one caller may be to blame. Only this layer knows which messages
      // belong together, so it sends each unit alone.
      if (units.length > 1 && error instanceof RowmqError && MAY_BE_ONE.has(error.code)) {
        for (const unit of units) await this.#carryOut([unit]);
      } else {
        for (const unit of units) unit.reject(error);
      }
    }
  }
}
