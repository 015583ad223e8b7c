import type { LoggerService } from '@nestjs/common';
import { inspect } from 'node:util';
import type { Settlement } from '../consumer/message.js';
import type { QueueConsumer } from '../consumer/queue-consumer.js';

/** Logs the events of a consumer and its messages. */
export function logConsumer(consumer: QueueConsumer, logger: Pick<LoggerService, 'log' | 'warn' | 'error'>): void {
  const { queue } = consumer;
  let isAway = false;
  consumer.on('dequeueFailed', (error) => {
    // Once per outage, not once per try.
    if (!isAway) logger.warn(`Queue '${queue}' gives no messages, and is asked again: ${text(error)}`);
    isAway = true;
  });
  consumer.on('dequeued', () => {
    if (isAway) logger.log(`Queue '${queue}' gives messages again.`);
    isAway = false;
  });
  consumer.on('handlerFailed', ({ id, receiveCount }, error, settlement) => {
    const what = whatBecomesOf(settlement);
    logger.warn(`Message ${id} of queue '${queue}' failed, received ${receiveCount} times; ${what}: ${text(error)}`);
  });
  consumer.on('leaseLost', ({ id }) =>
    logger.warn(`The lease of message ${id} of queue '${queue}' was lost: it is handed out again.`),
  );
  consumer.on('extendFailed', (error) =>
    logger.warn(`Leases of queue '${queue}' could not be extended, and are tried again: ${text(error)}`),
  );
  consumer.on('settleFailed', (error, messages) =>
    logger.error(
      messages.length === 0
        ? `Messages of queue '${queue}' could not be dead-lettered, and were given back: ${text(error)}`
        : `${messages.length} messages of queue '${queue}' could not be settled, and come again: ${text(error)}`,
    ),
  );
}

/** Nest's microservices throw plain objects. */
function text(error: unknown): string {
  return error instanceof Error ? String(error) : inspect(error, { breakLength: Infinity });
}

function whatBecomesOf(settlement: Settlement | undefined): string {
  if (settlement === undefined) return 'it had been settled before';
  return settlement.verb === 'nack' ? `it comes again in ${settlement.delaySeconds} s` : 'it is dead-lettered';
}
