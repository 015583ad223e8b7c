import { Injectable } from '@nestjs/common';
import type { KeyScope } from '@rowmq/contract';
import { MessageOperations } from './message-operations.js';
import { MoveTaskOperations } from './move-task-operations.js';
import { QueueOperations } from './queue-operations.js';
import type { Operation, Operations, SqsContext } from './sqs-context.js';
import { type OperationName, readInput } from './sqs-input.js';
import type { Output } from './sqs-protocol.js';

/** The scope that each operation needs. `any`: every valid key will do. */
const SCOPES: Record<OperationName, KeyScope | 'any'> = {
  CreateQueue: 'admin',
  GetQueueUrl: 'any',
  ListQueues: 'any',
  DeleteQueue: 'admin',
  PurgeQueue: 'admin',
  GetQueueAttributes: 'any',
  SetQueueAttributes: 'admin',
  TagQueue: 'admin',
  UntagQueue: 'admin',
  ListQueueTags: 'any',
  AddPermission: 'admin',
  RemovePermission: 'admin',
  ListDeadLetterSourceQueues: 'any',
  SendMessage: 'enqueue',
  SendMessageBatch: 'enqueue',
  ReceiveMessage: 'dequeue',
  DeleteMessage: 'dequeue',
  DeleteMessageBatch: 'dequeue',
  ChangeMessageVisibility: 'dequeue',
  ChangeMessageVisibilityBatch: 'dequeue',
  StartMessageMoveTask: 'admin',
  ListMessageMoveTasks: 'admin',
  CancelMessageMoveTask: 'admin',
};

/** Whether the audit lists it. */
export function isAudited(operation: OperationName): boolean {
  return SCOPES[operation] === 'admin' && operation !== 'ListMessageMoveTasks';
}

/** The operations of SQS, as translations onto the services that REST uses. */
@Injectable()
export class SqsService {
  private readonly operations: Operations<OperationName>;

  constructor(queues: QueueOperations, messages: MessageOperations, moveTasks: MoveTaskOperations) {
    this.operations = { ...queues.operations, ...messages.operations, ...moveTasks.operations };
  }

  /** Carries out an operation. Throws errors of SQS and of RowMQ. */
  async run(name: OperationName, members: unknown, context: SqsContext): Promise<Output> {
    const scope = SCOPES[name];
    if (scope !== 'any') context.caller.mustHave(scope);
    const operation = this.operations[name] as Operation<never>;
    return operation(readInput(name, members) as never, context);
  }
}
