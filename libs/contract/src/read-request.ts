import type { z } from 'zod';
import { clip } from './clip.js';
import { type Fault, RowmqError } from './errors.js';
import { requestTooLarge, sizeLimits } from './size-limits.js';

const FAULTS_NAMED = 10;
/** A name in a path or in a message may come from the request. */
const NAME_CHARS = 24;

/**
 * Reads a request as a broker reads it over HTTP, for callers in the same process. JSON drops
 * undefined fields and turns NaN into null, and a request has a largest size.
 *
 * Throws `invalid-request`, and `message-too-large` for a request that is larger than the limits
 * allow.
 */
export function readRequest<Schema extends z.ZodType>(
  schema: Schema,
  request: unknown,
  limits = sizeLimits(),
): z.output<Schema> {
  const text = JSON.stringify(request) as string | undefined;
  if (text !== undefined && Buffer.byteLength(text) > limits.requestBytes) throw requestTooLarge(limits);
  const result = schema.safeParse(text === undefined ? undefined : JSON.parse(text, refuseProto));
  if (result.success) return result.data;
  throw invalidRequest(result.error.issues);
}

interface Issue extends Pick<z.core.$ZodIssue, 'path' | 'message'> {
  /** The unknown fields of a strict object. */
  readonly keys?: readonly string[] | undefined;
}

/** The `invalid-request` that names each fault and its field, up to ten. */
export function invalidRequest(issues: readonly Issue[]): RowmqError {
  const faults: Fault[] = issues.slice(0, FAULTS_NAMED).map((issue) => ({
    path: issue.path.map((segment) => clip(String(segment), NAME_CHARS)).join('.'),
    message: messageOf(issue),
  }));
  const text = faults.map(({ path, message }) => (path === '' ? message : `${path}: ${message}`)).join('; ');
  const more = issues.length > FAULTS_NAMED ? `; and ${issues.length - FAULTS_NAMED} more` : '';
  return new RowmqError('invalid-request', `${text}${more}.`, { faults });
}

/** Zod names every unknown key in full. */
function messageOf({ message, keys = [] }: Issue): string {
  const [first, ...more] = keys;
  if (first === undefined) return message;
  return `Unrecognized key: "${clip(first, NAME_CHARS)}"${more.length > 0 ? `, and ${more.length} more` : ''}`;
}

/** Schemas drop a field of this name without a word, and a header of this name would be lost. */
function refuseProto(name: string, value: unknown): unknown {
  if (name !== '__proto__') return value;
  throw new RowmqError('invalid-request', 'A request has no field or header named __proto__; give it another name.');
}
