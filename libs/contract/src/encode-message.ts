import type { PayloadCodec } from './payload-codec.js';
import type { EnqueueRequest } from './schemas.js';
import { withTraceContext } from './trace-context.js';

export type EncodedMessage = EnqueueRequest['messages'][number];

/** The options of one message. */
export interface EnqueueOptions {
  /** At most 16, and 1024 bytes as JSON. */
  headers?: Record<string, string> | undefined;
  /** 0 to 9, 9 the most urgent. Default 4. */
  priority?: number | undefined;
  /** 0 to 31,622,400, which is 366 days. Absent: the queue's. */
  delaySeconds?: number | undefined;
  /** In place of a delay: the time from which the message is available, at most 366 days ahead. */
  availableAt?: Date | string | undefined;
  /**
   * 1 to 32,832,000, from the enqueue on. The queue's `messageTtlSeconds`, from when the message is
   * available, caps it and applies if absent.
   */
  expiresInSeconds?: number | undefined;
  /**
   * A further message with this id, 1 to 128 characters, is not stored within the queue's
   * `deduplicationSeconds`. Its enqueue returns the id of the first message.
   */
  deduplicationId?: string | undefined;
  /** 1 to 128 characters. Required in a queue with ordering `group`. Makes other queues fair. */
  groupId?: string | undefined;
}

/**
 * Makes the message of a payload: its body, and the trace context among its headers. Synchronous
 * unless the codec's schema is asynchronous.
 *
 * Throws as {@link PayloadCodec.encode} does.
 */
export function encodeMessage<In>(
  codec: PayloadCodec<In, unknown>,
  payload: In,
  { availableAt, ...options }: EnqueueOptions,
): EncodedMessage | Promise<EncodedMessage> {
  const headers = withTraceContext(options.headers);
  const message = {
    ...options,
    ...(availableAt !== undefined && { availableAt: toText(availableAt) }),
    ...(headers && { headers }),
  };
  const body = codec.encode(payload);
  return body instanceof Promise ? body.then((made) => ({ ...message, ...made })) : { ...message, ...body };
}

/** JSON writes a `Date` in the same way. */
function toText(time: Date | string): string {
  return typeof time === 'string' ? time : time.toISOString();
}
