import { BaseRpcContext } from '@nestjs/microservices';
import type { Message } from '../consumer/message.js';

/** What a handler of the transport can ask for beside its payload: `@Ctx() context: RowmqContext`. */
export class RowmqContext extends BaseRpcContext<[Message]> {
  /** The message: id, headers, how often it was received, the signal that its lease is lost. */
  getMessage(): Message {
    return this.args[0];
  }
}
