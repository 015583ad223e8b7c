import type { SqsError } from './sqs-error.js';

/** A request of either protocol, before anything looks at its members. */
export interface SqsRequest {
  /** Undefined: the request names none. */
  operation: string | undefined;
  members: Record<string, unknown>;
}

/** An answer of either protocol. */
export interface SqsAnswer {
  status: number;
  headers: Record<string, string>;
  body: string;
}

/** The members of an answer. Undefined: the operation has none. */
export type Output = Record<string, unknown> | undefined;

/** AWS JSON 1.0, or the Query protocol with its answers in XML. */
export interface SqsProtocol {
  write(operation: string, output: Output, requestId: string): SqsAnswer;
  writeError(error: SqsError, requestId: string): SqsAnswer;
}
