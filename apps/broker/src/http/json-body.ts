import { isUtf8 } from 'node:buffer';
import type { FastifyAdapter } from '@nestjs/platform-fastify';
import { RowmqError } from '@rowmq/contract';

/** Matches every text in which a key could be `__proto__`, written out or with escapes, and hardly any other. */
const MAY_NAME_PROTO = /__proto__|\\u00[4-7]/i;

/** Accepts JSON in UTF-8 and no other content type. */
export function acceptJson(adapter: FastifyAdapter): void {
  const instance = adapter.getInstance();
  instance.removeAllContentTypeParsers();
  instance.addContentTypeParser('application/json', { parseAs: 'buffer' }, (_request, body, done) => {
    try {
      done(null, parseJson(body as Buffer));
    } catch (error) {
      done(error as Error);
    }
  });
}

function parseJson(body: Buffer): unknown {
  if (body.length === 0) return undefined;
  // JSON.parse alone would replace broken UTF-8, and the broker would store a different text than was sent.
  if (!isUtf8(body))
    throw new RowmqError(
      'invalid-request',
      'The request is not valid UTF-8. Send a body that is not text with bodyEncoding base64.',
    );
  const text = body.toString();
  try {
    return JSON.parse(text, MAY_NAME_PROTO.test(text) ? refuseProto : undefined) as unknown;
  } catch (error) {
    if (error instanceof RowmqError) throw error;
    throw new RowmqError('invalid-request', `The request is not JSON: ${(error as Error).message}.`, { cause: error });
  }
}

/** Zod drops a key of this name, so a header would be lost quietly. */
function refuseProto(key: string, value: unknown): unknown {
  if (key === '__proto__')
    throw new RowmqError('invalid-request', "'__proto__' cannot be the name of a field or of a header.");
  return value;
}
