import { type EnqueueRequest, LIMITS } from '@rowmq/contract';
import type { BrokerClient } from '../broker-client.js';
import { withTraceContext } from '../tracing.js';
import { EnqueueBatcher } from './enqueue-batcher.js';
import { PayloadCodec, type PayloadOptions } from './payload-codec.js';

/** The options of one message. */
export interface EnqueueOptions {
  /** At most 16, and 1024 bytes as JSON. */
  headers?: Record<string, string> | undefined;
  /** 0 to 9, 9 the most urgent. Default 4. */
  priority?: number | undefined;
  /** 0 to 43,200. Absent: the queue's. */
  delaySeconds?: number | undefined;
  /** 1 to 1,209,600, capped by the queue's `messageTtlSeconds`, which also applies if absent. */
  expiresInSeconds?: number | undefined;
}

/** A queue to enqueue to. Calls in the same turn of the event loop share a request. */
export class Queue<In = unknown, Out = In> {
  readonly codec: PayloadCodec<In, Out>;
  readonly #batcher: EnqueueBatcher;

  constructor(
    readonly client: BrokerClient,
    readonly name: string,
    options: PayloadOptions<In, Out> = {},
  ) {
    this.codec = new PayloadCodec(name, options);
    this.#batcher = new EnqueueBatcher(client, name);
  }

  /**
   * Stores a message. Returns its id, a UUIDv7, once it is durable.
   *
   * Nothing is stored if it throws `PayloadError`, or `RowmqError` with code `queue-not-found`,
   * `queue-full`, `message-too-large` or `invalid-request`. `isOutcomeUnknown` tells whether the
   * messages may have been stored after another error.
   */
  async enqueue(payload: In, options: EnqueueOptions = {}): Promise<string> {
    const encoded = this.#encode(payload, options);
    const [id] = await this.#batcher.enqueue([isPromise(encoded) ? await encoded : encoded]);
    return id as string;
  }

  /**
   * Stores 1 to 100 messages, all or none. Returns their ids, in order. The options hold for all of
   * them, or a function makes them for each.
   *
   * Throws as {@link enqueue} does, and RangeError for none or too many.
   */
  async enqueueMany(
    payloads: readonly In[],
    options: EnqueueOptions | ((payload: In, index: number) => EnqueueOptions) = {},
  ): Promise<string[]> {
    if (payloads.length === 0 || payloads.length > LIMITS.batch) {
      throw new RangeError(
        `enqueueMany takes 1 to ${LIMITS.batch} messages, which are stored all or none; these are ${payloads.length}.`,
      );
    }
    const encoded = payloads.map((payload, index) =>
      this.#encode(payload, typeof options === 'function' ? options(payload, index) : options),
    );
    const ready = encoded.filter((message): message is EncodedMessage => !isPromise(message));
    // Synchronous if possible: a turn later it would be another request.
    return this.#batcher.enqueue(ready.length === encoded.length ? ready : await allOf(encoded));
  }

  #encode(payload: In, options: EnqueueOptions): EncodedMessage | Promise<EncodedMessage> {
    const headers = withTraceContext(options.headers);
    const message = { ...options, ...(headers && { headers }) };
    const body = this.codec.encode(payload);
    return isPromise(body) ? body.then((made) => ({ ...message, ...made })) : { ...message, ...body };
  }
}

async function allOf(encoded: (EncodedMessage | Promise<EncodedMessage>)[]): Promise<EncodedMessage[]> {
  return Promise.all(encoded.map(async (message) => message));
}

function isPromise<T>(value: T | Promise<T>): value is Promise<T> {
  return value instanceof Promise;
}

type EncodedMessage = EnqueueRequest['messages'][number];
