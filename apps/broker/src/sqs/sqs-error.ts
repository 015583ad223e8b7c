import { type ErrorCode, PROBLEMS, RowmqError } from '@rowmq/contract';

/** The namespace of most shapes in JSON. */
const SQS = 'com.amazonaws.sqs#';
/** The namespace of the shapes that all services of AWS share. */
const CORAL = 'com.amazon.coral.service#';
/** Begins the codes of most shapes in the Query protocol, and so in `x-amzn-query-error`. */
const LONG = 'AWS.SimpleQueueService.';

interface Kind {
  /** The exception's name in JSON. SDKs choose the class of the error by it. */
  type: string;
  /** The code of the Query protocol, which JSON repeats in a header. */
  code: string;
  status: number;
}

const kind = (type: string, code: string, status = 400): Kind => ({ type, code, status });
const modelled = (shape: string, code = shape, status = 400): Kind => kind(`${SQS}${shape}`, code, status);

/** Every error of SQS that RowMQ answers. */
const KINDS = {
  QueueDoesNotExist: modelled('QueueDoesNotExist', `${LONG}NonExistentQueue`),
  QueueNameExists: modelled('QueueNameExists', 'QueueAlreadyExists'),
  EmptyBatchRequest: modelled('EmptyBatchRequest', `${LONG}EmptyBatchRequest`),
  TooManyEntriesInBatchRequest: modelled('TooManyEntriesInBatchRequest', `${LONG}TooManyEntriesInBatchRequest`),
  BatchEntryIdsNotDistinct: modelled('BatchEntryIdsNotDistinct', `${LONG}BatchEntryIdsNotDistinct`),
  InvalidBatchEntryId: modelled('InvalidBatchEntryId', `${LONG}InvalidBatchEntryId`),
  BatchRequestTooLong: modelled('BatchRequestTooLong', `${LONG}BatchRequestTooLong`),
  ReceiptHandleIsInvalid: modelled('ReceiptHandleIsInvalid'),
  MessageNotInflight: modelled('MessageNotInflight', `${LONG}MessageNotInflight`),
  InvalidMessageContents: modelled('InvalidMessageContents'),
  InvalidAttributeName: modelled('InvalidAttributeName'),
  InvalidAttributeValue: modelled('InvalidAttributeValue'),
  InvalidAddress: modelled('InvalidAddress'),
  UnsupportedOperation: modelled('UnsupportedOperation', `${LONG}UnsupportedOperation`),
  ResourceNotFoundException: modelled('ResourceNotFoundException', 'ResourceNotFoundException', 404),
  RequestThrottled: modelled('RequestThrottled', 'RequestThrottled'),
  OverLimit: modelled('OverLimit', 'OverLimit', 403),
  InvalidParameterValue: kind(`${CORAL}InvalidParameterValueException`, 'InvalidParameterValue'),
  MissingParameter: kind(`${CORAL}MissingRequiredParameterException`, 'MissingParameter'),
  SerializationException: kind(`${CORAL}SerializationException`, 'SerializationException'),
  UnknownOperationException: kind(`${CORAL}UnknownOperationException`, 'UnknownOperationException', 404),
  InvalidAction: kind(`${CORAL}InvalidActionException`, 'InvalidAction'),
  MissingAuthenticationToken: kind(`${CORAL}MissingAuthenticationTokenException`, 'MissingAuthenticationToken', 403),
  IncompleteSignature: kind(`${CORAL}IncompleteSignatureException`, 'IncompleteSignature'),
  InvalidClientTokenId: kind(`${CORAL}UnrecognizedClientException`, 'InvalidClientTokenId', 403),
  SignatureDoesNotMatch: kind(`${CORAL}InvalidSignatureException`, 'SignatureDoesNotMatch', 403),
  RequestExpired: kind(`${CORAL}RequestExpiredException`, 'RequestExpired'),
  AccessDenied: kind(`${CORAL}AccessDeniedException`, 'AccessDenied', 403),
  InternalFailure: kind(`${CORAL}InternalFailure`, 'InternalFailure', 500),
  ServiceUnavailable: kind(`${CORAL}ServiceUnavailableException`, 'ServiceUnavailable', 503),
} satisfies Record<string, Kind>;

export type SqsErrorName = keyof typeof KINDS;

/** An error as SQS names it. */
export class SqsError extends Error {
  override readonly name = 'SqsError';
  readonly kind: Kind;
  /** RowMQ's own code, for the metrics. */
  readonly problem: ErrorCode;

  constructor(what: SqsErrorName, message: string, options: { cause?: unknown; problem?: ErrorCode } = {}) {
    super(message, options);
    this.kind = KINDS[what];
    this.problem = options.problem ?? (this.isSender ? 'invalid-request' : 'internal-error');
  }

  /** Whether the client made a mistake, and not the broker. */
  get isSender(): boolean {
    return this.kind.status < 500;
  }
}

/** The name that SQS has for an error of RowMQ. */
const NAMES: Record<ErrorCode, SqsErrorName> = {
  'invalid-request': 'InvalidParameterValue',
  unauthorized: 'InvalidClientTokenId',
  forbidden: 'AccessDenied',
  'too-many-attempts': 'RequestThrottled',
  'key-not-found': 'InvalidParameterValue',
  'key-exists': 'InvalidParameterValue',
  'queue-not-found': 'QueueDoesNotExist',
  'queue-exists': 'QueueNameExists',
  'schedule-not-found': 'InvalidParameterValue',
  'topic-not-found': 'InvalidParameterValue',
  'subscription-not-found': 'InvalidParameterValue',
  'job-not-found': 'ResourceNotFoundException',
  'delivery-not-found': 'InvalidParameterValue',
  'lease-lost': 'InvalidParameterValue',
  'message-leased': 'InvalidParameterValue',
  'enqueue-in-progress': 'RequestThrottled',
  'message-too-large': 'InvalidParameterValue',
  'idempotency-key-reused': 'InvalidParameterValue',
  'queue-full': 'RequestThrottled',
  'rate-limited': 'RequestThrottled',
  'queue-paused': 'RequestThrottled',
  'queue-not-empty': 'InvalidParameterValue',
  'queue-locked': 'ServiceUnavailable',
  overloaded: 'ServiceUnavailable',
  'database-unavailable': 'ServiceUnavailable',
  'internal-error': 'InternalFailure',
};

/** Any error as one of SQS. An unknown one is the broker's own fault. */
export function toSqsError(thrown: unknown): SqsError {
  if (thrown instanceof SqsError) return thrown;
  if (thrown instanceof RowmqError) {
    const { code, message } = thrown;
    if (code === 'queue-not-found') return noSuchQueue(thrown);
    return new SqsError(NAMES[code], message, { cause: thrown, problem: code });
  }
  // Fastify refuses a request that is too large, and Nest one of a web page.
  const { statusCode, status = statusCode } = thrown as { statusCode?: number; status?: number };
  if (status === 413)
    return new SqsError(
      'InvalidParameterValue',
      'The request is larger than the broker accepts. Send smaller batches.',
      {
        cause: thrown,
        problem: 'message-too-large',
      },
    );
  if (status !== undefined && status >= 400 && status < 500)
    return new SqsError(status === 403 ? 'AccessDenied' : 'InvalidParameterValue', (thrown as Error).message, {
      cause: thrown,
      problem: status === 403 ? 'forbidden' : 'invalid-request',
    });
  const { title } = PROBLEMS['internal-error'];
  return new SqsError('InternalFailure', `${title}; its log has the details. You may try again.`, {
    cause: thrown,
    problem: 'internal-error',
  });
}

export function noSuchQueue(cause?: unknown): SqsError {
  return new SqsError('QueueDoesNotExist', 'The specified queue does not exist.', {
    cause,
    problem: 'queue-not-found',
  });
}

export function invalidParameter(message: string): SqsError {
  return new SqsError('InvalidParameterValue', message);
}

export function invalidValue(value: unknown, parameter: string, reason: string): SqsError {
  return invalidParameter(`Value ${String(value)} for parameter ${parameter} is invalid. Reason: ${reason}`);
}

/** Throws `MissingParameter` unless the request has this member. */
export function required<T>(value: T | undefined, name: string): T {
  if (value === undefined || value === '') throw missing(name);
  return value;
}

export function missing(name: string): SqsError {
  return new SqsError('MissingParameter', `The request must contain the parameter ${name}.`);
}
