import type { LeasedMessage } from '@rowmq/contract';
import type { Settlement } from './message.js';

/** The events of a consumer. It logs nothing itself. */
export interface ConsumerEvents {
  /** The broker answered, with this many messages. */
  dequeued: [count: number];
  /** A dequeue failed. The consumer makes the next after a pause. */
  dequeueFailed: [error: unknown, pauseMs: number];
  /**
   * A handler threw or took too long (`HandlerTimeoutError`), or a payload did not fit. Undefined:
   * the message had already been settled. `isLast`: the queue dead-letters it after this attempt.
   */
  handlerFailed: [message: LeasedMessage, error: unknown, settlement: Settlement | undefined, isLast: boolean];
  /** A lease was lost while the consumer held its message: another consumer has it, or will. */
  leaseLost: [message: LeasedMessage];
  /** Messages were released, because no handler began with them in time or at all. */
  released: [messages: LeasedMessage[]];
  /** A message expired before a handler began with it. No handler sees it. */
  expired: [message: LeasedMessage];
  /** Leases could not be extended in this round. The consumer tries again. */
  extendFailed: [error: unknown];
  /**
   * These messages could not be settled, and come again when their leases end. The list is empty
   * if the broker refused to dead-letter, and the consumer nacked the messages instead.
   */
  settleFailed: [error: unknown, messages: LeasedMessage[]];
  /**
   * A listener of this event threw or rejected. Without a listener of its own, it becomes a warning
   * of the process (`process.on('warning', …)`).
   */
  listenerFailed: [event: string, error: unknown];
}

export type Tell = <Name extends keyof ConsumerEvents>(name: Name, ...what: ConsumerEvents[Name]) => void;
