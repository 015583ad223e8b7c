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
  /** This attempt failed, and counts towards the queue's `maxReceives`. */
  constructor(ms: number, reason?: string, retry = Retry.after(ms, reason)) {
    super(retry);
  }

  /** Puts the message off, which uses up no attempt. */
  static later(ms: number, reason?: string): RetryException {
    return new RetryException(ms, reason, Retry.later(ms, reason));
  }
}
