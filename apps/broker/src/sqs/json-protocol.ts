import { isUtf8 } from 'node:buffer';
import type { IncomingHttpHeaders } from 'node:http';
import { SqsError } from './sqs-error.js';
import type { SqsProtocol, SqsRequest } from './sqs-protocol.js';

export const JSON_TYPE = 'application/x-amz-json-1.0';
const TARGET = /^AmazonSQS\.(\w+)$/;

/** Whether a request says that its body is AWS JSON, of any version. */
export function isJson({ 'content-type': type = '' }: IncomingHttpHeaders): boolean {
  return type.toLowerCase().startsWith('application/x-amz-json');
}

/** Throws `SerializationException` for a body that is not a JSON object in UTF-8. */
export function readJsonRequest(body: Buffer, target: string | undefined): SqsRequest {
  return { operation: TARGET.exec(target ?? '')?.[1], members: readMembers(body) };
}

function readMembers(body: Buffer): Record<string, unknown> {
  if (body.length === 0) return {};
  if (!isUtf8(body)) throw notJson('it is not UTF-8');
  let members: unknown;
  try {
    members = JSON.parse(body.toString());
  } catch (error) {
    throw notJson((error as Error).message);
  }
  if (typeof members !== 'object' || members === null || Array.isArray(members)) throw notJson('it is not an object');
  return members as Record<string, unknown>;
}

function notJson(why: string): SqsError {
  return new SqsError('SerializationException', `The request is not valid JSON: ${why}.`);
}

export const jsonProtocol: SqsProtocol = {
  write: (_, output, requestId) => ({
    status: 200,
    headers: headersOf(requestId),
    body: output === undefined ? '{}' : JSON.stringify(output),
  }),
  writeError: ({ kind, isSender, message }, requestId) => ({
    status: kind.status,
    headers: {
      ...headersOf(requestId),
      'x-amzn-query-error': `${kind.code};${isSender ? 'Sender' : 'Receiver'}`,
    },
    body: JSON.stringify({ __type: kind.type, message }),
  }),
};

function headersOf(requestId: string): Record<string, string> {
  return { 'content-type': JSON_TYPE, 'x-amzn-requestid': requestId };
}
