import { type Lease, leasesInOrder, type Message } from './ledger.js';

/** The ledger's record of one message, line by line, for a person who looks for the fault. */
export function historyOf(message: Message): string[] {
  const enqueue =
    message.state === 'confirmed'
      ? `sent ${since(message.sentAt)}, confirmed ${since(message.answeredAt)}`
      : `sent ${since(message.sentAt)}, ${message.state === 'unknown' ? 'no answer' : message.state}`;
  const expiry = [
    message.expiresInSeconds === 0 ? '' : `, expires after ${message.expiresInSeconds} s`,
    message.expiresOnDatabase === 0 ? '' : `, expiresAt ${onDatabase(message.expiresOnDatabase)}`,
  ].join('');
  return [
    `message ${message.id ?? '(id not known)'}, number ${message.number}, queue ${message.queue + 1}`,
    `enqueue: ${enqueue}${expiry}`,
    ...leasesInOrder(message).flatMap(leaseHistory),
  ];
}

function leaseHistory(lease: Lease): string[] {
  const lines = [
    `lease ${lease.number} (receiveCount ${lease.receiveCount}) to consumer ${lease.consumer + 1}: ` +
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
export function alteredParts(lease: Lease): string {
  return [lease.bodyAltered ? 'body' : '', lease.headersAltered ? 'headers or priority' : '']
    .filter((part) => part !== '')
    .join(' and ');
}

const since = (at: number) => `+${(at / 1000).toFixed(3)} s`;
const onDatabase = (time: number) => new Date(time).toISOString().slice(11);
