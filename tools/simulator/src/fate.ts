import type { Lease, Message } from './ledger.js';

/**
 * The end of a message's life, as far as the ledger knows. `neverConfirmed`: its enqueue got no
 * answer, and nobody received it.
 */
export type Fate = 'acked' | 'ackUnanswered' | 'expired' | 'unaccounted' | 'refused' | 'neverConfirmed';

/**
 * @param leases in the order in which the database handed them out
 * @param endedAt the end of the run, on the simulator's clock
 */
export function fateOf(message: Message, leases: readonly Lease[], endedAt: number): Fate {
  if (message.acked) return 'acked';
  if (message.state === 'refused') return 'refused';
  // Only the last lease counts. An earlier ack was not carried out, or nothing would have been left
  // to hand out.
  const last = leases.at(-1);
  if (last?.settle === 'ack' && last.outcome === 'unknown') return 'ackUnanswered';
  // A delivery proves as well as an answer that the broker stored it.
  const storedBy = message.state === 'confirmed' ? message.answeredAt : leases[0]?.receivedAt;
  if (storedBy === undefined) return 'neverConfirmed';
  const surelyExpired = message.expiresInSeconds > 0 && storedBy + message.expiresInSeconds * 1000 <= endedAt;
  return surelyExpired ? 'expired' : 'unaccounted';
}
