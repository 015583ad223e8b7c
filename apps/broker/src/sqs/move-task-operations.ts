import { Injectable } from '@nestjs/common';
import { type JobAnswer, LIMITS, RowmqError } from '@rowmq/contract';
import { QueueRepository } from '@rowmq/store';
import { JobsService } from '../jobs/jobs.service.js';
import { type Address, arnOf, queueInArn } from './queue-address.js';
import type { Operations, SqsContext } from './sqs-context.js';
import { invalidParameter, invalidValue, required, SqsError } from './sqs-error.js';

const MOST_RESULTS = 10;
const MOST_A_SECOND = 500;
/** The jobs of a queue that a list looks through for redrives. */
const LOOKED_THROUGH = 100;

const STATUS: Record<JobAnswer['state'], string> = {
  running: 'RUNNING',
  done: 'COMPLETED',
  cancelled: 'CANCELLED',
  failed: 'FAILED',
};

/** Message move tasks, which are redrive jobs. */
@Injectable()
export class MoveTaskOperations {
  constructor(
    private readonly queues: QueueRepository,
    private readonly jobs: JobsService,
  ) {}

  readonly operations: Operations<'StartMessageMoveTask' | 'ListMessageMoveTasks' | 'CancelMessageMoveTask'> = {
    StartMessageMoveTask: async (input, context) => {
      const arn = required(input.SourceArn, 'SourceArn');
      const { DestinationArn, MaxNumberOfMessagesPerSecond: rate } = input;
      if (rate !== undefined && (rate < 1 || rate > MOST_A_SECOND))
        throw invalidValue(
          rate,
          'MaxNumberOfMessagesPerSecond',
          `Must be between 1 and ${MOST_A_SECOND}, if provided.`,
        );
      const source = await this.existing(arn, 'SourceArn', context);
      const target =
        DestinationArn === undefined ? undefined : await this.existing(DestinationArn, 'DestinationArn', context);
      const { id } = await this.queues.getFresh(source);
      const isDeadLetterQueue = (await this.queues.list()).some((queue) => queue.deadLetterQueueId === id);
      if (!isDeadLetterQueue) throw invalidParameter('Source queue must be configured as a Dead Letter Queue.');
      if ((await this.redrivesOf(source, context)).some(({ state }) => state === 'running'))
        throw invalidParameter(
          'There is already a task running. Only one active task is allowed for a source queue arn at a given time.',
        );
      const job = await this.jobs.redrive(context.caller, source, {
        filter: {},
        ...(target !== undefined && { toQueue: target }),
        messagesPerSecond: rate ?? LIMITS.jobRate.default,
      });
      return { TaskHandle: writeTaskHandle({ taskId: job.id, sourceArn: arn }) };
    },
    ListMessageMoveTasks: async ({ SourceArn, MaxResults = 1 }, context) => {
      const arn = required(SourceArn, 'SourceArn');
      if (MaxResults < 1 || MaxResults > MOST_RESULTS)
        throw invalidValue(MaxResults, 'MaxResults', `Must be between 1 and ${MOST_RESULTS}, if provided.`);
      const source = await this.existing(arn, 'SourceArn', context);
      const jobs = await this.redrivesOf(source, context);
      return { Results: jobs.slice(0, MaxResults).map((job) => toResult(job, context.address)) };
    },
    CancelMessageMoveTask: async ({ TaskHandle }, { caller }) => {
      const { taskId } = readTaskHandle(required(TaskHandle, 'TaskHandle'));
      const job = await this.jobs.get(caller, taskId, 0).catch((error: unknown) => {
        throw error instanceof RowmqError && error.code === 'job-not-found' ? noSuchTask() : error;
      });
      if (job.state !== 'running') throw invalidParameter('Only active tasks can be cancelled.');
      const { done } = await this.jobs.cancel(caller, taskId);
      return { ApproximateNumberOfMessagesMoved: done };
    },
  };

  /** The queue of an ARN. Throws `ResourceNotFoundException` if there is none. */
  private async existing(arn: string, parameter: string, { caller }: SqsContext): Promise<string> {
    const name = queueInArn(arn, parameter);
    caller.mustReach(name);
    await this.queues.getFresh(name).catch((error: unknown) => {
      if (!(error instanceof RowmqError) || error.code !== 'queue-not-found') throw error;
      throw new SqsError(
        'ResourceNotFoundException',
        `The resource that you specified for the ${parameter} parameter doesn't exist.`,
      );
    });
    return name;
  }

  /** The newest first. */
  private async redrivesOf(queue: string, { caller }: SqsContext): Promise<JobAnswer[]> {
    const { jobs } = await this.jobs.list(caller, { queue, limit: LOOKED_THROUGH });
    return jobs.filter(({ kind }) => kind === 'redrive');
  }
}

function toResult(job: JobAnswer, address: Address): Record<string, unknown> {
  const sourceArn = arnOf(address, job.queue);
  return {
    ...(job.state === 'running' && { TaskHandle: writeTaskHandle({ taskId: job.id, sourceArn }) }),
    Status: STATUS[job.state],
    SourceArn: sourceArn,
    ...(job.toQueue !== null && { DestinationArn: arnOf(address, job.toQueue) }),
    MaxNumberOfMessagesPerSecond: job.messagesPerSecond === LIMITS.jobRate.default ? undefined : job.messagesPerSecond,
    ApproximateNumberOfMessagesMoved: job.done,
    ApproximateNumberOfMessagesToMove: job.total ?? undefined,
    FailureReason: job.error ?? undefined,
    StartedTimestamp: Date.parse(job.createdAt),
  };
}

interface TaskHandle {
  taskId: string;
  sourceArn: string;
}

function writeTaskHandle({ taskId, sourceArn }: TaskHandle): string {
  return Buffer.from(JSON.stringify({ taskId, sourceArn })).toString('base64');
}

const TASK_ID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

function readTaskHandle(handle: string): TaskHandle {
  try {
    const task = JSON.parse(Buffer.from(handle, 'base64').toString()) as TaskHandle;
    if (TASK_ID.test(task.taskId)) return task;
  } catch {
    // It is refused below.
  }
  throw invalidValue(handle, 'TaskHandle', 'It is not the handle of a task.');
}

function noSuchTask(): SqsError {
  return new SqsError('ResourceNotFoundException', 'Task does not exist.');
}
