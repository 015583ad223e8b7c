import { Module } from '@nestjs/common';
import { MessagesModule } from '../messages/messages.module.js';
import { JobRunner } from './job-runner.js';
import { JobsController } from './jobs.controller.js';
import { JobsService } from './jobs.service.js';
import { QueueJobsController } from './queue-jobs.controller.js';

/** Jobs: work on whole queues that outlives a request. */
@Module({
  imports: [MessagesModule],
  controllers: [JobsController, QueueJobsController],
  providers: [JobsService, JobRunner],
  exports: [JobsService],
})
export class JobsModule {}
