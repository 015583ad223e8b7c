import { type EnqueueRequest, LIMITS, RowmqError } from '@rowmq/contract';
import { pause, turn } from '../timers.js';

type NewMessage = EnqueueRequest['messages'][number];

/** Messages that are stored together, all or none. */
interface Unit<Stored> {
  messages: readonly NewMessage[];
  /** The length of their bodies. */
  length: number;
  resolve: (stored: Stored[]) => void;
  reject: (error: unknown) => void;
}

/** Messages and the length of their bodies that wait for a request or for its answer, at most. */
const MOST_MESSAGES = 10_000;
const MOST_LENGTH = 64 * 1024 * 1024;
/**
 * The length of the bodies that share a request. A character becomes up to six in JSON, so the
 * request stays below the least limit of a broker, 4 MiB. 100 bodies of 4 KiB share one, also in
 * base64.
 */
const SHARED_LENGTH = 600 * 1024;

/** Messages wait this long at most for the answer to an earlier request. */
const HOLD_MS = 100;

/** Errors for which one caller of a shared request may be to blame. */
const MAY_BE_ONE = new Set<string>(['invalid-request', 'message-too-large', 'queue-full']);

/**
 * Collects messages into requests of up to 100 and half a million characters. A larger unit is a
 * request of its own.
 *
 * It follows Nagle's algorithm (RFC 896): a full request leaves at the end of the turn of the event
 * loop. Messages that do not fill one leave at once if no request is in flight. Otherwise they
 * collect until it is answered, or for 100 ms. Without this, many callers that send one message
 * after the other would soon send one request for each.
 */
export class EnqueueBatcher<Stored> {
  #units: Unit<Stored>[] = [];
  #messages = 0;
  #length = 0;
  /** Requests that keep messages waiting. */
  #inFlight = 0;
  #isSending = false;
  /** Calls that wait for room, in their order. */
  readonly #waiting: { count: number; length: number; enter: () => void }[] = [];

  readonly #store: (messages: NewMessage[]) => Promise<Stored[]>;

  /** @param store sends one request, and answers for each message, in order */
  constructor(store: (messages: NewMessage[]) => Promise<Stored[]>) {
    this.#store = store;
  }

  /**
   * Stores 1 to 100 messages, all or none. Returns the answers once they are durable. While 10,000
   * messages or 64 Mi characters wait for an answer, further calls wait for room, in their order.
   * Throws the client's errors.
   */
  async enqueue(messages: readonly NewMessage[]): Promise<Stored[]> {
    const length = messages.reduce((sum, { body }) => sum + body.length, 0);
    const count = messages.length;
    if (this.#waiting.length > 0 || this.#isFullFor(count, length)) await this.#room(count, length);
    else this.#enter(count, length);
    try {
      return await new Promise<Stored[]>((resolve, reject) => {
        this.#units.push({ messages, length, resolve, reject });
        void this.#sendSoon();
      });
    } finally {
      this.#messages -= count;
      this.#length -= length;
      this.#letIn();
    }
  }

  /** One unit always has room, however long it is. */
  #isFullFor(count: number, length: number): boolean {
    if (this.#messages === 0) return false;
    return this.#messages + count > MOST_MESSAGES || this.#length + length > MOST_LENGTH;
  }

  #enter(count: number, length: number): void {
    this.#messages += count;
    this.#length += length;
  }

  /** Resolves when the messages are counted among those that wait for an answer. */
  async #room(count: number, length: number): Promise<void> {
    await new Promise<void>((enter) => this.#waiting.push({ count, length, enter }));
  }

  #letIn(): void {
    for (let [next] = this.#waiting; next !== undefined; [next] = this.#waiting) {
      if (this.#isFullFor(next.count, next.length)) return;
      this.#waiting.shift();
      this.#enter(next.count, next.length);
      next.enter();
    }
  }

  /** Sends what may leave, once this turn of the event loop has brought all its messages. */
  async #sendSoon(): Promise<void> {
    if (this.#isSending) return;
    this.#isSending = true;
    await turn();
    this.#isSending = false;
    this.#send();
  }

  #send(): void {
    while (this.#units.length > 0) {
      const { units, isFull } = this.#nextRequest();
      if (!isFull && this.#inFlight > 0) return;
      void this.#request(this.#units.splice(0, units));
    }
  }

  /** The number of units that share the next request, and whether it has no more room. */
  #nextRequest(): { units: number; isFull: boolean } {
    let [size, length] = [0, 0];
    for (const [index, unit] of this.#units.entries()) {
      size += unit.messages.length;
      length += unit.length;
      const isOver = size > LIMITS.batch || length > SHARED_LENGTH;
      if (isOver && index > 0) return { units: index, isFull: true };
    }
    return { units: this.#units.length, isFull: size >= LIMITS.batch || length >= SHARED_LENGTH };
  }

  /** Sends one request, and others once it is answered or takes long. */
  async #request(units: readonly Unit<Stored>[]): Promise<void> {
    const answered = new AbortController();
    this.#inFlight += 1;
    void this.#carryOut(units).then(() => answered.abort());
    await pause(HOLD_MS, answered.signal);
    this.#inFlight -= 1;
    await this.#sendSoon();
  }

  /** Never rejects. */
  async #carryOut(units: readonly Unit<Stored>[]): Promise<void> {
    try {
      const stored = await this.#store(units.flatMap((unit) => unit.messages));
      let first = 0;
      for (const unit of units) {
        unit.resolve(stored.slice(first, first + unit.messages.length));
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
