import type { Caller } from '../http/caller.js';
import type { ClientConnection } from '../http/client-connection.js';
import { type Address, nameInUrl } from './queue-address.js';
import { required } from './sqs-error.js';
import type { Input, OperationName } from './sqs-input.js';
import type { Output } from './sqs-protocol.js';

/** Everything about a request except its members. */
export interface SqsContext {
  caller: Caller;
  /** The access key that signed the request; undefined: the broker asks for none. */
  accessKey: string | undefined;
  /** The host in the URLs of queues that answers carry. */
  address: Address;
  /** The client's address, also behind trusted proxies. */
  ip: string;
  /** The queue in the path. A QueueUrl among the members goes before it. */
  pathQueue: string | undefined;
  client: ClientConnection;
  userAgent: string | undefined;
}

export type Operation<Name extends OperationName> = (input: Input<Name>, context: SqsContext) => Promise<Output>;
export type Operations<Names extends OperationName> = { [Name in Names]: Operation<Name> };

/** Throws `MissingParameter` without a queue, and `forbidden` if the key does not reach it. */
export function queueOf({ QueueUrl }: { QueueUrl?: string | undefined }, { pathQueue, caller }: SqsContext): string {
  const name = QueueUrl === undefined || QueueUrl === '' ? pathQueue : nameInUrl(QueueUrl);
  caller.mustReach(required(name, 'QueueUrl'));
  return name as string;
}
