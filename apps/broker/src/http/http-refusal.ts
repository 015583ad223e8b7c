import { type ErrorCode, RowmqError } from '@rowmq/contract';

/** A refusal for which HTTP has a number of its own, such as 415. */
export class HttpRefusal extends RowmqError {
  constructor(
    readonly status: number,
    code: ErrorCode,
    detail: string,
  ) {
    super(code, detail);
  }
}
