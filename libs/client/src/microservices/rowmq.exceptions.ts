import { RpcException } from '@nestjs/microservices';
import { Reject, Retry } from '../consumer/outcomes.js';

/** To be thrown by a handler of the transport: dead-letters the message at once. Nest's exception filters let an RpcException through, and hide anything else. */
export class RejectException extends RpcException {
  constructor(reason: string) {
    super(new Reject(reason));
  }
}

/** To be thrown by a handler of the transport: the message comes again after `ms`, rounded up to whole seconds. */
export class RetryException extends RpcException {
  constructor(ms: number, reason?: string) {
    super(Retry.after(ms, reason));
  }
}
