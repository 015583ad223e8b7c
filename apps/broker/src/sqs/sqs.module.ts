import { Module } from '@nestjs/common';
import { AuditModule } from '../audit/audit.module.js';
import { JobsModule } from '../jobs/jobs.module.js';
import { KeysModule } from '../keys/keys.module.js';
import { MessagesModule } from '../messages/messages.module.js';
import { QueuesModule } from '../queues/queues.module.js';
import { MessageOperations } from './message-operations.js';
import { MoveTaskOperations } from './move-task-operations.js';
import { QueueOperations } from './queue-operations.js';
import { SqsAccess } from './sqs-access.js';
import { SqsEndpoint } from './sqs-endpoint.js';
import { SqsService } from './sqs.service.js';

/** The wire protocol of Amazon SQS. */
@Module({
  imports: [MessagesModule, QueuesModule, JobsModule, AuditModule, KeysModule],
  providers: [SqsEndpoint, SqsService, SqsAccess, QueueOperations, MessageOperations, MoveTaskOperations],
})
export class SqsModule {}
