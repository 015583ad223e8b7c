import { RowmqError } from '@rowmq/contract';
import { bareAnswer } from './bare-answer.js';

/**
 * The answer to bytes of which Node can make no request: too slow, too large a head, or not HTTP.
 * @param code the code of Node's error
 */
export function answerToBadBytes(code: string | undefined): string {
  switch (code) {
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return bareAnswer(
        408,
        new RowmqError('invalid-request', 'The request did not arrive within 30 seconds. Nothing was done.'),
      );
    case 'HPE_HEADER_OVERFLOW':
      return bareAnswer(431, new RowmqError('invalid-request', 'The head of the request is larger than 16 KiB.'));
    default:
      return bareAnswer(400, new RowmqError('invalid-request', 'The bytes that arrived are not an HTTP request.'));
  }
}
