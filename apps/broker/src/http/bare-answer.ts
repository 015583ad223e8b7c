import { STATUS_CODES } from 'node:http';
import type { RowmqError } from '@rowmq/contract';
import { toProblem } from './problem.filter.js';
import { VERSION } from './version.js';

/** The bytes of a problem on a connection that ends with it, for requests that reach no handler. */
export function bareAnswer(status: number, error: RowmqError): string {
  const body = JSON.stringify(toProblem(error, status));
  const head = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
    'Connection: close',
    'Content-Type: application/problem+json; charset=utf-8',
    `Content-Length: ${Buffer.byteLength(body)}`,
    `RowMQ-Version: ${VERSION}`,
  ];
  return `${head.join('\r\n')}\r\n\r\n${body}`;
}
