import { RpcException } from '@nestjs/microservices';
import { Reject, Retry } from '../consumer/outcomes.js';

/**
 * A handler of the transport throws it to dead-letter the message at once. Nest's exception filters
 * pass an RpcException on, and hide any other error.
 */
export class RejectException extends RpcException {
  constructor(reason: string) {
    super(new Reject(reason));
  }
}

/**
 * A handler of the transport throws it to get the message again after `ms`, rounded up to whole
 * seconds.
 */
export class RetryException extends RpcException {
  constructor(ms: number, reason?: string) {
    super(Retry.after(ms, reason));
  }
}
