import { BaseRpcContext } from '@nestjs/microservices';
import type { Message } from '../consumer/message.js';

/** The second argument of a handler of the transport: `@Ctx() context: RowmqContext`. */
export class RowmqContext extends BaseRpcContext<[Message]> {
  /** The message: its id, headers, number of receives, and the signal of a lost lease. */
  getMessage(): Message {
    return this.args[0];
  }
}
