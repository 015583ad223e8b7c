import type { LoggerService } from '@nestjs/common';
import type { LeasedMessage } from '@rowmq/contract';
import type { Settlement } from '../consumer/message.js';
import { Reject, Retry } from '../consumer/outcomes.js';
import type { QueueConsumer } from '../consumer/queue-consumer.js';
import { brief, describe, isA, reasonOf } from '../consumer/thrown.js';

type Log = Pick<LoggerService, 'log' | 'warn' | 'error'>;

/** Logs the events of a consumer and its messages. */
export function logConsumer(consumer: QueueConsumer, logger: Log): void {
  const { queue } = consumer;
  let isAway = false;
  consumer.on('dequeueFailed', (error) => {
    // Once per outage, not once per try.
    if (!isAway) logger.warn(`Queue '${queue}' cannot be read, and the consumer tries again: ${brief(error)}`);
    isAway = true;
  });
  consumer.on('dequeued', () => {
    if (isAway) logger.log(`Queue '${queue}' can be read again.`);
    isAway = false;
  });
  logFailures(consumer, logger);
  consumer.on('leaseLost', ({ id }) =>
    logger.warn(`The lease of message ${id} of queue '${queue}' was lost: the broker hands it out again.`),
  );
  consumer.on('extendFailed', (error) =>
    logger.warn(`Leases of queue '${queue}' could not be extended, and the consumer tries again: ${brief(error)}`),
  );
  consumer.on('settleFailed', (error, messages) =>
    logger.error(
      messages.length === 0
        ? `Messages of queue '${queue}' could not be dead-lettered, and were nacked instead: ${brief(error)}`
        : `${messages.length} messages of queue '${queue}' could not be settled, and come again when their leases end (${someIds(messages)}): ${brief(error)}`,
    ),
  );
  consumer.on('listenerFailed', (event, error) =>
    logger.error(`A listener of '${event}' of the consumer of queue '${queue}' failed: ${brief(error)}`),
  );
}

/** Each failure once, with its stack and causes. Messages of a batch that share it refer to it. */
function logFailures(consumer: QueueConsumer, logger: Log): void {
  const logged = new WeakMap<object, string>();
  consumer.on('handlerFailed', (message, error, settlement, isLast) => {
    const { id, receiveCount } = message;
    const line = `Message ${id} of queue '${consumer.queue}', attempt ${receiveCount}`;
    const outcome = outcomeOf(settlement, isLast);
    if (isA(error, Retry) && !error.usesAttempt) {
      logger.log(`${line}: ${outcome}: ${reasonOf(error)}`);
      return;
    }
    const level = isLast ? 'error' : 'warn';
    const first = typeof error === 'object' && error !== null ? logged.get(error) : undefined;
    if (first !== undefined) {
      logger[level](`${line} failed; ${outcome}: the same error as that of message ${first}`);
      return;
    }
    if (typeof error === 'object' && error !== null) logged.set(error, id);
    const isOrder = isA(error, Retry) || isA(error, Reject);
    logger[level](`${line} failed; ${outcome}: ${isOrder ? reasonOf(error) : describe(error)}`);
  });
}

const IDS_LOGGED = 5;

function someIds(messages: readonly LeasedMessage[]): string {
  const ids = messages.slice(0, IDS_LOGGED).map(({ id }) => id);
  return messages.length > IDS_LOGGED ? `${ids.join(', ')}, …` : ids.join(', ');
}

function outcomeOf(settlement: Settlement | undefined, isLast: boolean): string {
  switch (settlement?.verb) {
    case 'release':
      return `it was put off for ${settlement.delaySeconds} s, which uses up no attempt`;
    case 'nack':
      return isLast
        ? 'that was its last attempt, and it is dead-lettered'
        : `it comes again in ${settlement.delaySeconds} s`;
    case 'reject':
      return 'it is dead-lettered';
    default:
      return 'it had already been settled';
  }
}
