import type { Guarantees } from './guarantee.js';
import type { Lease, Ledger, Message } from './ledger.js';

/** Two machines' clocks run at slightly different speeds: allowed between a span on one and the same span on the other. */
export const CLOCK_SLACK_MS = 50;

/** Why messages were handed out again. */
export interface RedeliveryCauses {
  ranOut: number;
  nack: number;
  nackUnanswered: number;
  /** A dequeue whose answer nobody received had it in between. */
  answerLost: number;
}

/**
 * A long poll may be answered with what a claim took that began shortly before the request did, so a lease may be this much older than the request that got it.
 * Also covers the clocks' different speeds.
 */
const HELD_SLACK_MS = 250;
/** How long after its consumer stopped listening a dequeue may still be carried out by the broker. */
const UNANSWERED_HORIZON_MS = 30_000;

/** Judges one message's leases, which are given in hand-out order, each against the one before it. */
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

/** A consumer that surely held its lease must be able to settle and extend it; one whose lease had surely run out must not, whoever had the message since. */
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

/** Finds what is wrong between two consecutive leases of a message; answers it, or undefined. */
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
    // Either the ack came first, and the hand-out is wrong, or the hand-out came first, and the ack should have been refused.
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
  // An ack never gives back: if it was carried out the message is gone, if not the lease goes on. So only a nack ends a lease early.
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
 * Whether an ack may have been confirmed because the next holder's was carried out: it was answered only when its lease may have run out, since its COMMIT got no answer and the database was away; then others may have had
 * the message, and acked it. Whoever finds it gone cannot know whose ack that was. What it says is true: the message is settled, and was handed out before that was said.
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

/** Whether the nack of one lease may be what made the next possible. If that is in doubt its delay must be over, too; if it was confirmed, the delay is judged with the reasons. */
function mayFollowNack(before: Lease, lease: Lease): boolean {
  if (before.settle !== 'nack' || lease.receivedAt < before.settleSentAt) return false;
  if (before.outcome === 'confirmed') return true;
  // Refused only when the lease may have run out: its COMMIT may have got no answer, and others have had the message when that was looked into.
  const isInDoubt = before.outcome === 'unknown' || before.settleAnsweredAt > before.heldUntil;
  return isInDoubt && lease.receivedAt >= delayOverAt(before) - CLOCK_SLACK_MS;
}

/** The earliest end of a nack's delay. */
const delayOverAt = (nacked: Lease): number => nacked.settleSentAt + nacked.nackDelaySeconds * 1000;

/** Every hand-out but the first needs a reason, and receiveCount counts them all, the unseen ones too. */
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
    // A hand-out that is taken back is not counted, and without a receipt nobody ends it early: so each of these lasted for a whole lease, one after the other.
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

/** For how long, at most, the message may have been available or under leases that nobody saw before it was handed out. */
function timeBetween(message: Message, before: Lease | undefined, lease: Lease): number {
  if (before === undefined) return lease.receivedAt - message.sentAt;
  const sinceEnd = lease.handedOutOnDatabase - before.endsOnDatabase;
  if (!mayFollowNack(before, lease)) return sinceEnd;
  const sinceNack = lease.receivedAt - delayOverAt(before);
  return before.outcome === 'confirmed' ? sinceNack : Math.max(sinceNack, sinceEnd);
}

/** How many dequeues may have taken the message between two hand-outs without anybody having seen it. */
function doubtfulBetween(ledger: Ledger, message: Message, before: Lease | undefined, lease: Lease): number {
  const from = (before?.askedAt ?? message.sentAt) - UNANSWERED_HORIZON_MS;
  return ledger.doubtful.filter(
    ({ queue, askedAt, endedAt }) => queue === message.queue && askedAt < lease.receivedAt && endedAt >= from,
  ).length;
}
