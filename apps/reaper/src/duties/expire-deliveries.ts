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
 * Removes expired deliveries that nobody holds, or dead-letters them if their queue keeps them. No
 * claim hands them out; this frees their space.
 */
@Injectable()
export class ExpireDeliveries implements Duty {
  readonly name = 'expire-deliveries';
  readonly everySeconds = 5;
  private readonly walk = new QueueWalk();

  constructor(
    private readonly queues: QueueRepository,
    private readonly unleased: UnleasedRepository,
    private readonly messages: MessageRepository,
    private readonly minutes: MinuteRepository,
  ) {}

  async run({ signal }: Round): Promise<number> {
    const counts = new Map<number, EventCounts>();
    try {
      return await this.walk.run(await this.queues.list(), signal, async (queue, after, rows) => {
        const { found, next } = await this.unleased.findExpired(queue.id, after, rows);
        if (found.length === 0) return { count: 0, next };
        const event = queue.deadLetterExpired ? 'deadLettered' : 'expired';
        const count = await (queue.deadLetterExpired
          ? this.messages.deadLetterExpired(queue, found)
          : this.messages.expire(queue.id, found));
        if (count > 0) counts.set(queue.id, { [event]: count + (counts.get(queue.id)?.[event] ?? 0) });
        return { count, next };
      });
    } finally {
      await this.minutes.add(counts);
    }
  }
}
