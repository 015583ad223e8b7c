import { Injectable } from '@nestjs/common';
import { MessageRepository, QueueRepository, UnleasedRepository } from '@rowmq/store';
import { QueueWalk } from '../queue-walk.js';
import type { Duty, Round } from './duty.js';

/**
 * Removes deliveries past their expiry that nobody holds. They would not be handed out anyway; this
 * gives their space back.
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
  ) {}

  async run({ signal }: Round): Promise<number> {
    return this.walk.run(await this.queues.list(), signal, async (queue, after, rows) => {
      const { found, next } = await this.unleased.findExpired(queue.id, after, rows);
      return { count: found.length === 0 ? 0 : await this.messages.expire(queue.id, found), next };
    });
  }
}
