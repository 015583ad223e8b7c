import type { ClaimOutcome, Demand, MessageRepository, Queue } from '@rowmq/store';

/** Leases messages of one queue. */
export async function claimFrom(
  messages: MessageRepository,
  queue: Queue,
  demands: readonly Demand[],
): Promise<ClaimOutcome> {
  const [outcome] = await messages.claim([{ queue, demands }]);
  return outcome as ClaimOutcome;
}
