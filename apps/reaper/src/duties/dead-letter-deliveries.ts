import { Injectable } from '@nestjs/common';
import { MessageRepository, QueueRepository, UnleasedRepository } from '@rowmq/store';
import { QueueWalk } from '../queue-walk.js';
import type { Duty, Round } from './duty.js';

/**
 * Moves deliveries that were received too often to their dead-letter queue. A claim does so when it
 * meets one; this finds those that no claim meets.
 */
@Injectable()
export class DeadLetterDeliveries implements Duty {
  readonly name = 'dead-letter-deliveries';
  readonly everySeconds = 5;
  private readonly walk = new QueueWalk();

  constructor(
    private readonly queues: QueueRepository,
    private readonly unleased: UnleasedRepository,
    private readonly messages: MessageRepository,
  ) {}

  async run({ signal }: Round): Promise<number> {
    const queues = (await this.queues.list()).filter(
      (queue) => queue.maxReceives !== null && queue.deadLetterQueueId !== null,
    );
    return this.walk.run(queues, signal, async (queue, after, rows) => {
      const { found, next } = await this.unleased.findOverReceived(queue, after, rows);
      return { count: found.length === 0 ? 0 : await this.messages.deadLetter(queue, found), next };
    });
  }
}
