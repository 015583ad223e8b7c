import { randomBytes } from 'node:crypto';
import type { IncomingMessage } from 'node:http';

/** The header that names a request, in the request and in the reply. */
export const REQUEST_ID_HEADER = 'x-request-id';

/** No log and no header can be broken by these. */
const VALID = /^[A-Za-z0-9._:@/+=-]{1,64}$/;

const prefix = randomBytes(5).toString('hex');
let count = 0;

/** The id that the client gave the request, or a new one if that is absent or malformed. */
export function requestIdOf({ headers }: Pick<IncomingMessage, 'headers'>): string {
  const given = headers[REQUEST_ID_HEADER];
  if (typeof given === 'string' && VALID.test(given)) return given;
  count += 1;
  return `${prefix}-${count.toString(36)}`;
}
