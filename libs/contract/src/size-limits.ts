import { RowmqError } from './errors.js';
import { LIMITS } from './limits.js';

/** By these a broker refuses messages for their size. */
export interface SizeLimits {
  /** A body after decoding. */
  readonly bodyBytes: number;
  /** A whole request as JSON. */
  readonly requestBytes: number;
}

const MIB = 1024 * 1024;
/**
 * Enough for 100 messages of 4 KiB with their headers, each byte written as a six-character escape.
 */
const LEAST_REQUEST_BYTES = 4 * MIB;
/**
 * A request holds at least 23 of the largest messages in plain text. It holds three, each byte
 * written as a six-character escape. With the largest bodies these are 6 MiB. As SQL, in
 * hexadecimal, they take 12 MiB, which fits the smallest default of `max_allowed_packet` (16 MiB).
 */
const BODIES_PER_REQUEST = 24;

/** The limits that follow from that of a body. The request's is a whole number of MiB. */
export function sizeLimits(bodyBytes: number = LIMITS.bodyBytesDefault): SizeLimits {
  const requestBytes = Math.ceil((BODIES_PER_REQUEST * bodyBytes) / MIB) * MIB;
  return { bodyBytes, requestBytes: Math.max(LEAST_REQUEST_BYTES, requestBytes) };
}

/**
 * The number of these, from the first on, whose bytes fit one answer. At least 1, unless there are
 * none.
 */
export function countFitting<T>(all: readonly T[], bytesOf: (one: T, nth: number) => number): number {
  let bytes = 0;
  const end = all.findIndex((one, nth) => (bytes += bytesOf(one, nth)) > LIMITS.answerBytes);
  return end < 0 ? all.length : Math.max(1, end);
}

/** The refusal of a request that is larger than these limits allow. */
export function requestTooLarge({ requestBytes }: SizeLimits): RowmqError {
  return new RowmqError(
    'message-too-large',
    `The request is larger than ${requestBytes / MIB} MiB; send fewer messages at a time.`,
  );
}
