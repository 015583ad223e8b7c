import { z } from 'zod';
import { LIMITS } from './limits.js';
import { instant, queueName } from './schemas.js';

/** Why messages moved to another queue. */
export const moveCause = z.enum(['max-receives', 'rejected', 'expired', 'redriven', 'moved']).meta({
  description:
    'max-receives: it was handed out too often; rejected: a consumer nacked it with deadLetter; expired; redriven; moved: by an operator',
  example: 'max-receives',
});
export type MoveCause = z.output<typeof moveCause>;

const text = z.string().min(1).max(LIMITS.searchChars);

/**
 * Which messages of a queue an operator means. All conditions must hold. A request of a job has
 * this as an object, and a browse has the same names in its query.
 */
export const messageFilter = z.strictObject({
  source: queueName.optional().meta({
    description: 'Messages that left this queue first, or that are in it and never left it',
    example: 'orders',
  }),
  reason: text.optional().meta({
    description: 'Messages whose nack reason, or the cause or reason of a move, contains this text; case matters',
    example: 'timeout',
  }),
  header: text.optional().meta({
    description: 'Messages with this header: `name`, or `name=value`; case matters',
    example: 'event=created',
  }),
  body: text.optional().meta({
    description: 'Messages whose body contains this text, in UTF-8; case matters',
    example: '"order":17',
  }),
  enqueuedFrom: instant.optional().meta({ description: 'Messages that were enqueued at this time or later' }),
  enqueuedTo: instant.optional().meta({ description: 'Messages that were enqueued before this time' }),
  movedFrom: instant.optional().meta({ description: 'Messages that came here by a move, at this time or later' }),
  movedTo: instant.optional().meta({ description: 'Messages that came here by a move, before this time' }),
});
export type MessageFilter = z.output<typeof messageFilter>;

/** A delivery as a filter looks at it, without the body and headers of its messages. */
export interface FilteredDelivery {
  /** The name of the queue that it left first, or that it is in. */
  source: string | undefined;
  nackReason: string | null;
  moves: readonly { at: number; cause: string; reason: string | null }[];
  /** ms since 1970. */
  enqueuedAt: number;
}

/** Whether a filter looks at the body or the headers of messages. */
export function looksInside({ header, body }: MessageFilter): boolean {
  return header !== undefined || body !== undefined;
}

/** Whether a delivery meets the conditions that need neither body nor headers. */
export function matchesDelivery(filter: MessageFilter, delivery: FilteredDelivery): boolean {
  const { source, nackReason, moves, enqueuedAt } = delivery;
  if (filter.source !== undefined && filter.source !== source) return false;
  const texts = [nackReason, ...moves.flatMap(({ cause, reason }) => [cause, reason])];
  if (filter.reason !== undefined && !texts.some((one) => one?.includes(filter.reason as string))) return false;
  return (
    isWithin(enqueuedAt, filter.enqueuedFrom, filter.enqueuedTo) &&
    isWithin(moves.at(-1)?.at, filter.movedFrom, filter.movedTo)
  );
}

/** Whether a message meets the conditions on its body and headers. */
export function matchesContent(
  { header, body }: MessageFilter,
  content: { headers: Readonly<Record<string, string>>; body: Buffer },
): boolean {
  if (header !== undefined && !hasHeader(content.headers, header)) return false;
  return body === undefined || content.body.includes(body);
}

/** A name may hold `=` itself, so every `=` may be the one between name and value. */
function hasHeader(headers: Readonly<Record<string, string>>, wanted: string): boolean {
  return Object.entries(headers).some(([name, value]) => name === wanted || `${name}=${value}` === wanted);
}

function isWithin(at: number | undefined, from: string | undefined, to: string | undefined): boolean {
  if (from === undefined && to === undefined) return true;
  if (at === undefined) return false;
  return (from === undefined || at >= Date.parse(from)) && (to === undefined || at < Date.parse(to));
}
