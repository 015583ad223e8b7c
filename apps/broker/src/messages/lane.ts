import type { EnqueueRequest } from '@rowmq/store';

/**
 * Enqueues that do not share a batch. A batch with deduplicationIds may wait for a service's open
 * transaction that uses one of them, and so may one with Idempotency-Keys, which is rarer. One of
 * ordered queues waits for the locks of groups. One with groups in other queues takes another round
 * trip.
 */
export type Lane = 'plain' | 'withKey' | 'withIds' | 'withGroups' | 'inOrder';

type Request = Pick<EnqueueRequest, 'idempotencyKey' | 'messages'>;

export function laneOf({ idempotencyKey, messages }: Request): 'plain' | 'withKey' | 'withIds' {
  if (messages.some(({ deduplicationId }) => deduplicationId !== undefined)) return 'withIds';
  return idempotencyKey === undefined ? 'plain' : 'withKey';
}

export function hasGroups({ messages }: Request): boolean {
  return messages.some(({ groupId }) => groupId !== undefined);
}
