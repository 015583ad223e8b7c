import type { Guarantees } from './guarantee.js';
import type { Lease, Ledger, Message } from './ledger.js';

/**
 * Two machines' clocks run at slightly different speeds. The verdict allows this much between a
 * span on one and the same span on the other.
 */
export const CLOCK_SLACK_MS = 50;

/** Reasons why messages were handed out again. */
export interface RedeliveryCauses {
  ranOut: number;
  nack: number;
  nackUnanswered: number;
  /** A dequeue whose answer nobody received had leased it in between. */
  answerLost: number;
}

/**
 * A claim that began shortly before a long poll may answer it. A lease may therefore be this much
 * older than the request that got it. It also covers the clocks' different speeds.
 */
const HELD_SLACK_MS = 250;
/** The broker may carry out a dequeue for so long after its consumer stopped listening. */
const UNANSWERED_HORIZON_MS = 30_000;

/**
 * Judges one message's leases, each against the one before it.
 * @param leases in the order in which the database handed them out
 */
export function judgeLeases(
  guarantees: Guarantees,
  causes: RedeliveryCauses,
  ledger: Ledger,
  message: Message,
  leases: readonly Lease[],
): void {
  for (const [index, lease] of leases.entries()) {
    const before = leases[index - 1];
    guarantees.exclusive.checked();
    if (lease.settle === 'ack' && lease.outcome === 'confirmed') guarantees.notAfterAck.checked();
    if (before !== undefined || lease.receiveCount > 1) guarantees.explained.checked();
    const fault = before === undefined ? undefined : judgePair(guarantees, message, before, lease);
    if (fault === undefined) judgeReason(guarantees, causes, ledger, message, before, lease);
    judgeAnswer(guarantees, message, lease);
  }
}

/**
 * A consumer that surely held its lease must be able to settle and extend it. After the lease has
 * surely run out, it must not, whoever had the message since.
 */
function judgeAnswer({ fenced }: Guarantees, message: Message, lease: Lease): void {
  if (lease.extendedLateMs > CLOCK_SLACK_MS) {
    fenced.broken(message, 'an extend was accepted after the lease had surely run out');
  }
  if (lease.settle === 'none' || lease.outcome === 'unknown') return;
  fenced.checked();
  if (lease.outcome === 'confirmed') {
    if (lease.settleSentAt > lease.overAt + CLOCK_SLACK_MS) {
      fenced.broken(message, `${lease.settle} was accepted after the lease had surely run out`);
    }
    return;
  }
  if (lease.settleAnsweredAt >= lease.heldUntil - HELD_SLACK_MS) return;
  // An expired message may be removed from under its lease.
  const earliestExpiry = message.expiresInSeconds === 0 ? Infinity : message.sentAt + message.expiresInSeconds * 1000;
  if (lease.settleAnsweredAt >= earliestExpiry) return;
  fenced.broken(message, `${lease.settle} was refused although the lease was surely still held`);
}

/** Finds a fault between two consecutive leases of a message. */
function judgePair(
  { notAfterAck, exclusive, fenced }: Guarantees,
  message: Message,
  before: Lease,
  lease: Lease,
): 'fault' | undefined {
  if (lease.handedOutOnDatabase === before.handedOutOnDatabase && lease.receiveCount === before.receiveCount) {
    exclusive.broken(message, 'delivered twice under one lease');
    return 'fault';
  }
  if (before.settle === 'ack' && before.outcome === 'confirmed' && !mayBeTheNextOnes(before, lease)) {
    // If the ack came first, the hand-out is wrong. If the hand-out came first, the broker should
    // have refused the ack.
    if (lease.receivedAt < before.settleSentAt) {
      fenced.broken(message, 'an ack was accepted after the message had been handed out again');
    } else {
      notAfterAck.broken(message, 'handed out again after a confirmed ack');
    }
    return 'fault';
  }
  if (before.extendedOnDatabase >= lease.handedOutOnDatabase) {
    fenced.broken(message, 'an extend was accepted after the message had been handed out again');
    return 'fault';
  }
  const nackMayHaveComeFirst = mayFollowNack(before, lease);
  // An ack never makes a message ready again. Either it was carried out and the message is gone, or
  // the lease goes on. Only a nack ends a lease early.
  if (lease.handedOutOnDatabase < before.endsOnDatabase && !nackMayHaveComeFirst) {
    const overlapMs = before.endsOnDatabase - lease.handedOutOnDatabase;
    exclusive.broken(
      message,
      `handed out again ${overlapMs} ms before the lease before it ended, by the database's clock`,
    );
    return 'fault';
  }
  if (before.settle === 'nack' && before.outcome === 'confirmed' && !nackMayHaveComeFirst) {
    fenced.broken(message, 'a nack was accepted after the message had been handed out again');
    return 'fault';
  }
  return undefined;
}

/**
 * Whether an ack may have been confirmed because the next holder's ack was carried out.
 *
 * Its COMMIT got no answer, and the database was away until the lease may have run out. Others may
 * then have had the message and acked it. The broker finds it gone and cannot know whose ack that
 * was. Its answer is true: the message is settled, and its hand-out came before the answer.
 */
function mayBeTheNextOnes(before: Lease, lease: Lease): boolean {
  const isAckedNext = lease.settle === 'ack' && (lease.outcome === 'confirmed' || lease.outcome === 'unknown');
  return (
    before.settleAnsweredAt > before.heldUntil &&
    lease.handedOutOnDatabase >= before.endsOnDatabase &&
    isAckedNext &&
    lease.settleSentAt < before.settleAnsweredAt
  );
}

/**
 * Whether the nack of one lease may have made the next possible. If that is in doubt, its delay
 * must be over, too. If it was confirmed, {@link judgeReason} judges the delay.
 */
function mayFollowNack(before: Lease, lease: Lease): boolean {
  if (before.settle !== 'nack' || lease.receivedAt < before.settleSentAt) return false;
  if (before.outcome === 'confirmed') return true;
  // The broker refused it only when the lease may have run out. Its COMMIT may have got no answer,
  // and others may have had the message before the broker could check.
  const isInDoubt = before.outcome === 'unknown' || before.settleAnsweredAt > before.heldUntil;
  return isInDoubt && lease.receivedAt >= delayOverAt(before) - CLOCK_SLACK_MS;
}

/** The earliest end of a nack's delay. */
const delayOverAt = (nacked: Lease): number => nacked.settleSentAt + nacked.nackDelaySeconds * 1000;

/**
 * Every hand-out but the first needs a reason. receiveCount counts all of them, also those that
 * nobody saw.
 */
function judgeReason(
  { explained }: Guarantees,
  causes: RedeliveryCauses,
  ledger: Ledger,
  message: Message,
  before: Lease | undefined,
  lease: Lease,
): void {
  const unseen = lease.receiveCount - (before?.receiveCount ?? 0) - 1;
  if (unseen < 0) {
    explained.broken(message, `receiveCount was ${before?.receiveCount ?? 0}, then ${lease.receiveCount}`);
    return;
  }
  if (unseen > 0) {
    if (unseen > doubtfulBetween(ledger, message, before, lease)) {
      explained.broken(message, `receiveCount tells of ${unseen} more hand-outs than dequeues without an answer allow`);
      return;
    }
    // The broker does not count a hand-out that it releases. Without a receipt, nobody ends a
    // hand-out early. So each of these lasted for a whole lease, one after the other.
    const roomMs = timeBetween(message, before, lease);
    if (roomMs < unseen * ledger.shortestLeaseMs - CLOCK_SLACK_MS) {
      explained.broken(message, `${unseen} hand-outs that nobody saw do not fit into ${Math.round(roomMs)} ms`);
      return;
    }
    causes.answerLost++;
  }
  if (before === undefined) return;
  const nacked = before.settle === 'nack' && before.outcome === 'confirmed';
  if (nacked && lease.receivedAt < delayOverAt(before) - CLOCK_SLACK_MS) {
    explained.broken(message, `handed out again before the nack's delay of ${before.nackDelaySeconds} s was over`);
  } else if (unseen > 0) return;
  else if (nacked) causes.nack++;
  else if (lease.handedOutOnDatabase >= before.endsOnDatabase) causes.ranOut++;
  else causes.nackUnanswered++;
}

/**
 * Upper bound on the time, before the hand-out, in which the message was ready or under leases that
 * nobody saw.
 */
function timeBetween(message: Message, before: Lease | undefined, lease: Lease): number {
  if (before === undefined) return lease.receivedAt - message.sentAt;
  const sinceEnd = lease.handedOutOnDatabase - before.endsOnDatabase;
  if (!mayFollowNack(before, lease)) return sinceEnd;
  const sinceNack = lease.receivedAt - delayOverAt(before);
  return before.outcome === 'confirmed' ? sinceNack : Math.max(sinceNack, sinceEnd);
}

/**
 * Number of dequeues that may have leased the message between two hand-outs without anybody seeing
 * it.
 */
function doubtfulBetween(ledger: Ledger, message: Message, before: Lease | undefined, lease: Lease): number {
  const from = (before?.askedAt ?? message.sentAt) - UNANSWERED_HORIZON_MS;
  return ledger.doubtful.filter(
    ({ queue, askedAt, endedAt }) => queue === message.queue && askedAt < lease.receivedAt && endedAt >= from,
  ).length;
}
