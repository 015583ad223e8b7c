import { Injectable } from '@nestjs/common';
import {
  type EventCounts,
  MessageRepository,
  MinuteRepository,
  QueueRepository,
  UnleasedRepository,
} from '@rowmq/store';
import { QueueWalk } from '../queue-walk.js';
import type { Duty, Round } from './duty.js';

/**
 * Moves deliveries that were received too often to their dead-letter queue. A claim does so with
 * each one that it finds. This duty finds the rest.
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
    private readonly minutes: MinuteRepository,
  ) {}

  async run({ signal }: Round): Promise<number> {
    const queues = (await this.queues.list()).filter(
      (queue) => queue.maxReceives !== null && queue.deadLetterQueueId !== null,
    );
    const counts = new Map<number, EventCounts>();
    try {
      return await this.walk.run(queues, signal, async (queue, after, rows) => {
        const { found, next } = await this.unleased.findOverReceived(queue, after, rows);
        const moved = found.length === 0 ? 0 : await this.messages.deadLetter(queue, found);
        if (moved > 0) counts.set(queue.id, { deadLettered: moved + (counts.get(queue.id)?.deadLettered ?? 0) });
        return { count: moved, next };
      });
    } finally {
      await this.minutes.add(counts);
    }
  }
}
