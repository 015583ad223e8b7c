import type { Lease, Message } from './ledger.js';

/** How a message's life ended, as far as the ledger knows. `neverConfirmed`: its enqueue got no answer, and it was never delivered. */
export type Fate = 'acked' | 'ackUnanswered' | 'expired' | 'unaccounted' | 'refused' | 'neverConfirmed';

/** `leases` in hand-out order; `endedAt`: when the run was over, on the simulator's clock. */
export function fateOf(message: Message, leases: readonly Lease[], endedAt: number): Fate {
  if (message.acked) return 'acked';
  if (message.state === 'refused') return 'refused';
  // Only the last lease's: an earlier one's ack was not carried out, or there would have been nothing left to hand out.
  const last = leases.at(-1);
  if (last?.settle === 'ack' && last.outcome === 'unknown') return 'ackUnanswered';
  // A delivery tells as well as an answer that it was stored.
  const storedBy = message.state === 'confirmed' ? message.answeredAt : leases[0]?.receivedAt;
  if (storedBy === undefined) return 'neverConfirmed';
  const surelyExpired = message.expiresInSeconds > 0 && storedBy + message.expiresInSeconds * 1000 <= endedAt;
  return surelyExpired ? 'expired' : 'unaccounted';
}
