import type { StandardSchemaV1 } from '@standard-schema/spec';
import { RowmqError } from './errors.js';
import { LIMITS } from './limits.js';
import { quietly } from './quietly.js';
import type { EnqueueMessage, LeasedMessage } from './schemas.js';

/** The format of a queue's payloads. */
export interface PayloadOptions<In = unknown, Out = In> {
  /** `json` (default), or `bytes`: payloads are `Uint8Array`s that are stored as they are. */
  format?: 'json' | 'bytes' | undefined;
  /**
   * Any Standard Schema (Zod, Valibot, ArkType …). A payload that does not fit is neither enqueued
   * nor handed to a consumer. A consumer gets the output of the schema.
   */
  schema?: StandardSchemaV1<In, Out> | undefined;
}

/** A message's payload does not fit the queue's schema or format. */
export class PayloadError extends Error {
  override readonly name = 'PayloadError';
}

type Body = Pick<EnqueueMessage, 'body' | 'bodyEncoding'>;

/** Turns payloads into bodies and back. */
export class PayloadCodec<In = unknown, Out = In> {
  readonly #where: string;
  readonly #options: PayloadOptions<In, Out>;

  /** @param where the queue or the topic, as errors name it */
  constructor(where: string, options: PayloadOptions<In, Out> = {}) {
    this.#where = where;
    this.#options = options;
  }

  /**
   * Encodes a payload as a body. The body is the payload as given, not the output of the schema,
   * which is for the consumer. Synchronous unless the schema is asynchronous.
   *
   * Throws {@link PayloadError}, and `message-too-large`.
   */
  encode(payload: In): Body | Promise<Body> {
    if (this.#options.format === 'bytes') return this.#encodeBytes(payload);
    const body = this.#toJson(payload);
    if (body === undefined) {
      throw new PayloadError(`A payload for ${this.#where} is ${typeof payload}, which JSON cannot represent.`);
    }
    this.#assertFits(Buffer.byteLength(body));
    const encoded: Body = { body, bodyEncoding: 'utf8' };
    if (this.#options.schema === undefined) return encoded;
    // Checked as the consumer will see it: JSON changes a Date, and drops some fields.
    const checked = this.#check(JSON.parse(body));
    return checked instanceof Promise ? checked.then(() => encoded) : encoded;
  }

  /** Decodes a body with the queue's schema. Throws {@link PayloadError}. */
  decode({ body, bodyEncoding }: Pick<LeasedMessage, 'body' | 'bodyEncoding'>): Out | Promise<Out> {
    const bytes = Buffer.from(body, bodyEncoding);
    if (this.#options.format === 'bytes') return bytes as Out;
    return this.#check(parse(this.#where, bodyEncoding === 'utf8' ? body : bytes.toString()));
  }

  #toJson(payload: In): string | undefined {
    try {
      return JSON.stringify(payload);
    } catch (error) {
      // A method toJSON may throw anything.
      const why = quietly(() => (error instanceof Error ? error.message : String(error))) ?? 'it cannot be read';
      throw new PayloadError(`A payload for ${this.#where} cannot be represented as JSON: ${why}`, {
        cause: error,
      });
    }
  }

  #encodeBytes(payload: In): Body {
    if (!(payload instanceof Uint8Array)) {
      throw new PayloadError(`A payload for ${this.#where}, whose format is bytes, is not a Uint8Array.`);
    }
    this.#assertFits(payload.byteLength);
    const { buffer, byteOffset, byteLength } = payload;
    return { body: Buffer.from(buffer, byteOffset, byteLength).toString('base64'), bodyEncoding: 'base64' };
  }

  #assertFits(bytes: number): void {
    // The broker's own limit may be lower. Its refusal names that limit.
    if (bytes <= LIMITS.bodyBytesMost) return;
    throw new RowmqError(
      'message-too-large',
      `A payload for ${this.#where} has ${bytes} bytes, more than the ${LIMITS.bodyBytesMost} that any broker takes; store it elsewhere and enqueue a reference.`,
    );
  }

  #check(payload: unknown): Out | Promise<Out> {
    const { schema } = this.#options;
    if (schema === undefined) return payload as Out;
    const result = schema['~standard'].validate(payload);
    if (!isThenable(result)) return this.#valid(result);
    return Promise.resolve(result).then((outcome) => this.#valid(outcome));
  }

  #valid(result: StandardSchemaV1.Result<Out>): Out {
    if (result.issues === undefined) return result.value;
    const faults = result.issues.map(({ path, message }) => `${pathOf(path)}${message}`).join('; ');
    throw new PayloadError(`The payload does not fit the schema of ${this.#where}: ${faults}`);
  }
}

/** Other libraries have promises of their own. */
function isThenable<T>(value: T | Promise<T>): value is Promise<T> {
  return typeof (value as { then?: unknown } | null)?.then === 'function';
}

function parse(where: string, body: string): unknown {
  try {
    return JSON.parse(body) as unknown;
  } catch (error) {
    throw new PayloadError(
      `The payload is not JSON, as ${where} is registered; register it with format 'bytes' to get it as it is.`,
      {
        cause: error,
      },
    );
  }
}

function pathOf(path: StandardSchemaV1.Issue['path']): string {
  if (path === undefined || path.length === 0) return '';
  return `${path.map((part) => String(typeof part === 'object' ? part.key : part)).join('.')}: `;
}
