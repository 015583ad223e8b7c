import {
  bodyEncodingOf,
  encodeReceipt,
  type EnqueueAnswer,
  type EnqueueMessage,
  formatMessageId,
  type LeasedMessage as LeasedMessageJson,
  messageBytes,
  messageIdTime,
  readHeaders,
  type SizeLimits,
} from '@rowmq/contract';
import type { EnqueuedMessage, LeasedMessage, MessageView, NewMessage } from '@rowmq/store';

/**
 * Makes a message of a producer's request. It gets its id when its batch is stored. Throws
 * `message-too-large`, and `invalid-request` for a body that is not base64 although the request
 * says so.
 * @param index the message's index in the request
 */
export function toNewMessage(message: EnqueueMessage, index: number, sizes: SizeLimits): NewMessage {
  const { body, headers } = messageBytes(message, index, sizes);
  return {
    body,
    headers,
    ...(message.groupId !== undefined && { groupId: message.groupId }),
    priority: message.priority,
    delaySeconds: message.delaySeconds,
    availableAt: message.availableAt === undefined ? undefined : Date.parse(message.availableAt),
    expiresInSeconds: message.expiresInSeconds,
    deduplicationId: message.deduplicationId,
  };
}

/** A message as enqueue answers it. */
export function toEnqueuedMessage({ id, duplicate }: EnqueuedMessage): EnqueueAnswer['messages'][number] {
  return duplicate ? { id: formatMessageId(id), duplicate } : { id: formatMessageId(id) };
}

/**
 * A leased message as dequeue answers it. Spreading it from parts took a sixth of a busy broker's
 * time.
 */
export function toLeasedMessage(message: LeasedMessage): LeasedMessageJson {
  const bodyEncoding = bodyEncodingOf(message.body);
  const json: LeasedMessageJson = {
    id: formatMessageId(message.messageId),
    body: message.body.toString(bodyEncoding),
    bodyEncoding,
    headers: readHeaders(message.headers),
    enqueuedAt: formatTime(messageIdTime(message.messageId)),
    expiresAt: formatTime(message.expiresAt),
    priority: message.priority,
    receipt: encodeReceipt(message),
    receiveCount: message.receiveCount,
    leaseExpiresAt: formatTime(message.leaseExpiresAt),
  };
  if (message.replayOf !== undefined) json.replayOf = formatMessageId(message.replayOf);
  if (message.groupId !== undefined) json.groupId = message.groupId;
  return json;
}

/**
 * The immutable part of a message, as every call answers it. A body that is not valid UTF-8 becomes
 * base64.
 */
export function toContent(message: Omit<MessageView, 'queueId' | 'topicId'>) {
  const bodyEncoding = bodyEncodingOf(message.body);
  return {
    id: formatMessageId(message.id),
    body: message.body.toString(bodyEncoding),
    bodyEncoding,
    headers: readHeaders(message.headers),
    ...(message.groupId !== undefined && { groupId: message.groupId }),
    enqueuedAt: formatTime(messageIdTime(message.id)),
    expiresAt: formatTime(message.expiresAt),
    ...(message.replayOf !== undefined && { replayOf: formatMessageId(message.replayOf) }),
  };
}

/** ISO 8601 without milliseconds, by second: the messages of an answer share a few seconds. */
const seconds = new Map<number, string>();
const SECONDS_REMEMBERED = 1000;

/** ms since 1970 as ISO 8601 UTC with milliseconds. */
export function formatTime(ms: number): string {
  const second = Math.floor(ms / 1000);
  let text = seconds.get(second);
  if (text === undefined) {
    if (seconds.size >= SECONDS_REMEMBERED) seconds.clear();
    text = new Date(second * 1000).toISOString().slice(0, -'000Z'.length);
    seconds.set(second, text);
  }
  return `${text}${String(ms - second * 1000).padStart(3, '0')}Z`;
}
