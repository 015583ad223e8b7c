import type { FailedReceipt } from '@rowmq/contract';
import type { Lease, Outcome } from './ledger.js';
import { failed, inFlight, now, type Run } from './run.js';

/** A lease that a consumer believes it holds. */
export interface HeldLease {
  lease: Lease;
  receipt: string;
}

const OUTCOME_OF: Record<FailedReceipt['code'], Outcome> = {
  'lease-lost': 'leaseLost',
  'delivery-not-found': 'notFound',
  // The receipt came from the broker, so refusing it as malformed is losing the lease.
  'invalid-request': 'leaseLost',
};

/** Acks the leases, or nacks them if there is a delay, and records the broker's answer to each. */
export async function settleLeases(
  run: Run,
  queue: number,
  leases: readonly HeldLease[],
  nackDelaySeconds: number | undefined,
): Promise<void> {
  if (leases.length === 0) return;
  const kind = nackDelaySeconds === undefined ? 'ack' : 'nack';
  const sentAt = now();
  for (const { lease } of leases) run.ledger.settling(lease, kind, sentAt, nackDelaySeconds);
  try {
    const { done, refused } = await inFlight(run, send(run, queue, leases, nackDelaySeconds));
    const answeredAt = now();
    if (kind === 'ack') run.meter.time('ack', answeredAt - sentAt);
    run.meter.count(kind === 'ack' ? 'acked' : 'nacked', done.size);
    for (const { lease, receipt } of leases) {
      const code = refused.get(receipt);
      if (done.has(receipt)) run.ledger.settled(lease, 'confirmed', answeredAt);
      else if (code === undefined) run.meter.error('answer-incomplete');
      else {
        run.meter.count('leaseLost');
        run.ledger.settled(lease, OUTCOME_OF[code], answeredAt);
      }
    }
  } catch (error) {
    if (failed(run, error) === 'nothing-done') for (const { lease } of leases) run.ledger.notSettled(lease);
  }
}

/** Extends the leases by their full length. Returns the leases that are still held. */
export async function extendLeases(run: Run, queue: number, leases: readonly HeldLease[]): Promise<HeldLease[]> {
  const { leaseSeconds } = run.settings;
  const leaseMs = leaseSeconds * 1000;
  const sentAt = now();
  try {
    const receipts = leases.map(({ receipt }) => receipt);
    const call = run.client.extend(run.queues[queue] ?? '', { receipts, leaseSeconds });
    const answer = await inFlight(run, call);
    const answeredAt = now();
    const extended = new Map(
      answer.extended.map(({ receipt, leaseExpiresAt }) => [receipt, Date.parse(leaseExpiresAt)]),
    );
    const refused = new Map(answer.failed.map(({ receipt, code }) => [receipt, code]));
    run.meter.count('extended', extended.size);
    return leases.filter(({ lease, receipt }) => {
      const expiresOnDatabase = extended.get(receipt);
      const code = refused.get(receipt);
      if (expiresOnDatabase !== undefined) run.ledger.extended(lease, leaseMs, expiresOnDatabase, sentAt, answeredAt);
      else if (code === undefined) {
        run.meter.error('answer-incomplete');
        run.ledger.extendUnanswered(lease, leaseMs, sentAt);
      } else {
        run.meter.count('leaseLost');
        run.ledger.settling(lease, 'extend', sentAt);
        run.ledger.settled(lease, OUTCOME_OF[code], answeredAt);
      }
      return expiresOnDatabase !== undefined;
    });
  } catch (error) {
    if (failed(run, error) === 'unknown') {
      for (const { lease } of leases) run.ledger.extendUnanswered(lease, leaseMs, sentAt);
    }
    return [...leases];
  }
}

interface Settled {
  done: Set<string>;
  refused: Map<string, FailedReceipt['code']>;
}

async function send(
  { client, queues }: Run,
  queue: number,
  leases: readonly HeldLease[],
  delaySeconds: number | undefined,
): Promise<Settled> {
  const name = queues[queue] ?? '';
  const receipts = leases.map(({ receipt }) => receipt);
  if (delaySeconds === undefined) {
    const { acked, failed: refused } = await client.ack(name, { receipts });
    return { done: new Set(acked), refused: codes(refused) };
  }
  const answer = await client.nack(name, { receipts, delaySeconds, reason: 'simulated failure' });
  return { done: new Set(answer.nacked), refused: codes(answer.failed) };
}

function codes(failures: readonly FailedReceipt[]): Map<string, FailedReceipt['code']> {
  return new Map(failures.map(({ receipt, code }) => [receipt, code]));
}
