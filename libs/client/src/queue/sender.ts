import { LIMITS } from '@rowmq/contract';
import {
  type EncodedMessage,
  encodeMessage,
  type EnqueueOptions,
  PayloadCodec,
  type PayloadOptions,
} from '@rowmq/contract/producer';
import { EnqueueBatcher } from './enqueue-batcher.js';

/** Makes messages of payloads, and sends those of one turn of the event loop in one request. */
export class Sender<In, Out, Stored> {
  readonly codec: PayloadCodec<In, Out>;
  readonly #batcher: EnqueueBatcher<Stored>;

  /**
   * @param where the queue or the topic, as errors name it
   * @param store sends one request, and answers for each message, in order
   */
  constructor(
    where: string,
    options: PayloadOptions<In, Out>,
    store: (messages: EncodedMessage[]) => Promise<Stored[]>,
  ) {
    this.codec = new PayloadCodec(where, options);
    this.#batcher = new EnqueueBatcher(store);
  }

  async send(payload: In, options: EnqueueOptions): Promise<Stored> {
    const encoded = encodeMessage(this.codec, payload, options);
    const [stored] = await this.#batcher.enqueue([isPromise(encoded) ? await encoded : encoded]);
    return stored as Stored;
  }

  /** @param verb the caller's name, for its RangeError */
  async sendMany(
    verb: string,
    payloads: readonly In[],
    options: EnqueueOptions | ((payload: In, index: number) => EnqueueOptions),
  ): Promise<Stored[]> {
    if (payloads.length === 0 || payloads.length > LIMITS.batch) {
      throw new RangeError(
        `${verb} takes 1 to ${LIMITS.batch} messages, which are stored all or none; these are ${payloads.length}.`,
      );
    }
    const encoded = payloads.map((payload, index) =>
      encodeMessage(this.codec, payload, typeof options === 'function' ? options(payload, index) : options),
    );
    const ready = encoded.filter((message): message is EncodedMessage => !isPromise(message));
    // Synchronous if possible: a turn later it would be another request.
    return this.#batcher.enqueue(ready.length === encoded.length ? ready : await allOf(encoded));
  }
}

async function allOf(encoded: (EncodedMessage | Promise<EncodedMessage>)[]): Promise<EncodedMessage[]> {
  return Promise.all(encoded.map(async (message) => message));
}

function isPromise<T>(value: T | Promise<T>): value is Promise<T> {
  return value instanceof Promise;
}
