import XMLBuilder from 'fast-xml-builder';
import type { Output, SqsProtocol } from './sqs-protocol.js';

const NAMESPACE = 'http://queue.amazonaws.com/doc/2012-11-05/';

/**
 * A bare carriage return would become a line feed in the client's parser, and the body would no
 * longer have the digest that comes with it.
 */
const OPTIONS = {
  ignoreAttributes: false,
  attributeNamePrefix: '@',
  processEntities: true,
  entities: [
    { regex: /&/g, val: '&amp;' },
    { regex: /</g, val: '&lt;' },
    { regex: />/g, val: '&gt;' },
    { regex: /"/g, val: '&quot;' },
    { regex: /\r/g, val: '&#xD;' },
    // No parser reads an answer with another one: not even an escape may name it.
    { regex: /[^\t\n\r\u{20}-\u{D7FF}\u{E000}-\u{FFFD}\u{10000}-\u{10FFFF}]/gu, val: '\uFFFD' },
  ],
};
const builder = new XMLBuilder(OPTIONS);

type Members = Record<string, unknown>;

/** Members that are lists or maps in JSON, and repeated elements in XML. */
const ELEMENTS: Record<string, (value: never, operation: string) => Members> = {
  QueueUrls: (urls: string[]) => ({ QueueUrl: urls }),
  queueUrls: (urls: string[]) => ({ QueueUrl: urls }),
  Messages: (messages: Members[], operation) => ({ Message: messages.map((one) => membersOf(one, operation)) }),
  Attributes: (attributes: Members) => ({ Attribute: pairs(attributes, 'Name') }),
  MessageAttributes: (attributes: Members) => ({ MessageAttribute: pairs(attributes, 'Name') }),
  Tags: (tags: Members) => ({ Tag: pairs(tags, 'Key') }),
  Successful: (entries: Members[], operation) => ({ [`${operation}ResultEntry`]: entries }),
  Failed: (entries: Members[]) => ({ BatchResultErrorEntry: entries }),
  Results: (results: Members[], operation) => ({ [`${operation}ResultEntry`]: results }),
};

function pairs(map: Members, key: string): Members[] {
  return Object.entries(map).map(([name, value]) => ({ [key]: name, Value: value }));
}

function membersOf(output: Members, operation: string): Members {
  const members = Object.entries(output).flatMap(([name, value]) => {
    if (value === undefined) return [];
    const write = Object.hasOwn(ELEMENTS, name) ? ELEMENTS[name] : undefined;
    return Object.entries(write === undefined ? { [name]: value } : write(value as never, operation));
  });
  return Object.fromEntries(members);
}

/** The answers of the Query protocol. */
export const xmlProtocol: SqsProtocol = {
  write: (operation: string, output: Output, requestId: string) =>
    answer(200, requestId, {
      [`${operation}Response`]: {
        '@xmlns': NAMESPACE,
        ...(output !== undefined && { [`${operation}Result`]: membersOf(output, operation) }),
        ResponseMetadata: { RequestId: requestId },
      },
    }),
  writeError: ({ kind, isSender, message }, requestId) => {
    if (kind.code === 'UnknownOperationException')
      return answer(kind.status, requestId, { UnknownOperationException: '' });
    return answer(kind.status, requestId, {
      ErrorResponse: {
        '@xmlns': NAMESPACE,
        Error: {
          Type: isSender ? 'Sender' : 'Receiver',
          Code: kind.code,
          Message: kind.code === NO_SUCH_QUEUE ? message.replace(/\.$/, ' for this wsdl version.') : message,
          Detail: '',
        },
        RequestId: requestId,
      },
    });
  },
};

const NO_SUCH_QUEUE = 'AWS.SimpleQueueService.NonExistentQueue';

function answer(status: number, requestId: string, document: Members) {
  return {
    status,
    headers: { 'content-type': 'text/xml', 'x-amzn-requestid': requestId },
    body: `<?xml version="1.0"?>${builder.build(document)}`,
  };
}
