import type { LeaseRecord, MessageRecord } from './ledger-records.js';

/** How a message's life ended, as far as the ledger knows. `neverConfirmed`: its enqueue got no answer, and no ack of it was confirmed. */
export type Fate = 'acked' | 'ackUnanswered' | 'expired' | 'unaccounted' | 'refused' | 'neverConfirmed';

/** `leases` in hand-out order; `endedAt`: when the run was over, on the simulator's clock. */
export function fateOf(record: MessageRecord, leases: readonly LeaseRecord[], endedAt: number): Fate {
  if (record.acked) return 'acked';
  if (record.state === 'refused') return 'refused';
  const last = leases.at(-1);
  if (last?.settle === 'ack' && last.outcome === 'unknown') return 'ackUnanswered';
  if (record.state !== 'confirmed') return 'neverConfirmed';
  const surelyExpired = record.expiresInSeconds > 0 && record.answeredAt + record.expiresInSeconds * 1000 <= endedAt;
  return surelyExpired ? 'expired' : 'unaccounted';
}
