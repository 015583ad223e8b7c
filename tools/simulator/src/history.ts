import type { Ledger } from './ledger.js';
import { readLeases, readMessage, type LeaseRecord } from './ledger-records.js';

/** What the ledger knows about one message, line by line, for a person who looks for the fault. */
export function historyOf(ledger: Ledger, message: number): string[] {
  const record = readMessage(ledger, message);
  const enqueue =
    record.state === 'confirmed'
      ? `sent ${since(record.sentAt)}, confirmed ${since(record.answeredAt)}`
      : `sent ${since(record.sentAt)}, ${record.state === 'unknown' ? 'no answer' : record.state}`;
  const expiry = [
    record.expiresInSeconds === 0 ? '' : `, expires after ${record.expiresInSeconds} s`,
    record.expiresOnDatabase === 0 ? '' : `, expiresAt ${onDatabase(record.expiresOnDatabase)}`,
  ].join('');
  return [
    `message ${ledger.idOf(message) ?? '(id not known)'}, number ${message}, queue ${record.queue + 1}`,
    `enqueue: ${enqueue}${expiry}`,
    ...readLeases(ledger, message).flatMap(leaseHistory),
  ];
}

function leaseHistory(lease: LeaseRecord): string[] {
  const lines = [
    `lease ${lease.lease} (receiveCount ${lease.receiveCount}) to consumer ${lease.consumer + 1}: ` +
      `asked ${since(lease.askedAt)}, received ${since(lease.receivedAt)}; ` +
      `database: ${onDatabase(lease.handedOutOnDatabase)} to ${onDatabase(lease.endsOnDatabase)}`,
  ];
  if (lease.extendedOnDatabase > 0) lines.push(`  last extended ${onDatabase(lease.extendedOnDatabase)}`);
  if (lease.settle !== 'none') {
    const delay = lease.settle === 'nack' ? ` with delay ${lease.nackDelaySeconds} s` : '';
    const answer =
      lease.outcome === 'unknown' ? 'no answer' : `${OUTCOME_WORDS[lease.outcome]} ${since(lease.settleAnsweredAt)}`;
    lines.push(`  ${lease.settle}${delay}: sent ${since(lease.settleSentAt)}, ${answer}`);
  }
  if (lease.bodyAltered || lease.headersAltered) lines.push(`  ${alteredParts(lease)} altered`);
  return lines;
}

const OUTCOME_WORDS = {
  none: '',
  confirmed: 'confirmed',
  leaseLost: 'refused with lease-lost',
  notFound: 'refused with delivery-not-found',
  unknown: '',
} as const;

/** Which parts of the delivered message differ from what was sent. */
export function alteredParts(lease: LeaseRecord): string {
  return [lease.bodyAltered ? 'body' : '', lease.headersAltered ? 'headers or priority' : '']
    .filter((part) => part !== '')
    .join(' and ');
}

const since = (at: number) => `+${(at / 1000).toFixed(3)} s`;
const onDatabase = (time: number) => new Date(time).toISOString().slice(11);
