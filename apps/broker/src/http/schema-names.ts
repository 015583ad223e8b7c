import * as contract from '@rowmq/contract';
import type { z } from 'zod';

/**
 * The names of schemas in the document. A generated client has a type of each name. The others,
 * which are parts of these or plain strings, stay where they are used.
 */
export const NAMED = new Map<z.ZodType, string>(
  Object.entries({
    EnqueueMessage: contract.enqueueMessage,
    EnqueueRequest: contract.enqueueRequest,
    EnqueueAnswer: contract.enqueueAnswer,
    DequeueRequest: contract.dequeueRequest,
    DequeueAnswer: contract.dequeueAnswer,
    LeasedMessage: contract.leasedMessage,
    AckRequest: contract.ackRequest,
    AckAnswer: contract.ackAnswer,
    FailedReceipt: contract.failedReceipt,
    NackRequest: contract.nackRequest,
    NackAnswer: contract.nackAnswer,
    ReleaseRequest: contract.releaseRequest,
    ReleaseAnswer: contract.releaseAnswer,
    ExtendRequest: contract.extendRequest,
    ExtendAnswer: contract.extendAnswer,
    QueueSettings: contract.putQueueRequest,
    Queue: contract.queueAnswer,
    QueueStats: contract.queueStats,
    QueueList: contract.queuesAnswer,
    PurgeAnswer: contract.purgeAnswer,
    PauseAnswer: contract.pauseAnswer,
    RedriveRequest: contract.redriveRequest,
    RedriveAnswer: contract.redriveAnswer,
    BrowsedMessage: contract.browsedMessage,
    BrowseAnswer: contract.browseAnswer,
    Delivery: contract.browsedDelivery,
    Message: contract.messageAnswer,
    ReaperRun: contract.reaperRun,
    Reaper: contract.reaperAnswer,
    Root: contract.rootAnswer,
    Problem: contract.problem,
  }).map(([name, schema]) => [schema, name]),
);

/** A reference to the named schema, for an answer that no decorator of a call describes. */
export function refTo(schema: z.ZodType): { $ref: string } {
  return { $ref: `#/components/schemas/${NAMED.get(schema)}` };
}
