import { fateOf, type Fate } from './fate.js';
import { newGuarantees, type Guarantee, type GuaranteeResult, type Guarantees, type Status } from './guarantee.js';
import { alteredParts } from './history.js';
import { CLOCK_SLACK_MS, judgeLeases, type RedeliveryCauses } from './lease-verdict.js';
import { type Lease, type Ledger, leasesInOrder, type Message } from './ledger.js';
import { judgeOrder } from './order-verdict.js';

/** The broker's state after the last consumer had stopped. */
export interface Evidence {
  /** When it was read, on the simulator's clock. */
  endedAt: number;
  /** Every queue reported nothing ready, delayed or leased. */
  drained: boolean;
  /** Messages with a delivery that the broker still shows. */
  stillThere: ReadonlySet<number>;
  /** Messages that nobody accounts for, and for which the broker did not answer. */
  unverified: ReadonlySet<number>;
}

export interface Verdict {
  status: Status;
  guarantees: GuaranteeResult[];
  fates: Record<Fate, number>;
  redeliveries: RedeliveryCauses;
  /**
   * Bounds on the messages that the broker has stored, whether delivered since or not. An enqueue
   * without an answer may or may not have stored its batch.
   */
  stored: { atLeast: number; atMost: number };
}

/**
 * Judges a run by every message and every lease in the ledger.
 *
 * After a lost answer, only certain facts count against the broker. An unanswered enqueue may have
 * stored its batch. An unanswered ack may have settled, and an unanswered nack may have made its
 * message ready. An unanswered dequeue may have leased messages that nobody saw. A failed call
 * excuses nothing else.
 */
export function judge(ledger: Ledger, evidence: Evidence): Verdict {
  const guarantees = newGuarantees();
  const fates: Record<Fate, number> = {
    acked: 0,
    ackUnanswered: 0,
    expired: 0,
    unaccounted: 0,
    refused: 0,
    neverConfirmed: 0,
  };
  const redeliveries: RedeliveryCauses = { ranOut: 0, nack: 0, nackUnanswered: 0, answerLost: 0 };
  const stored = { atLeast: 0, atMost: 0 };
  for (const message of ledger.messages) {
    if (message.state === 'planned') continue;
    const leases = leasesInOrder(message);
    const fate = fateOf(message, leases, evidence.endedAt);
    fates[fate]++;
    if (isStored(message, leases)) stored.atLeast++;
    if (isStored(message, leases) || message.state === 'unknown') stored.atMost++;
    judgeFate(guarantees, message, leases, fate, evidence);
    judgeContents(guarantees.unaltered, message, leases);
    judgeExpiry(guarantees.notAfterExpiry, message, leases);
    judgeLeases(guarantees, redeliveries, ledger, message, leases);
  }
  judgeBatches(guarantees.whole, ledger, evidence);
  judgeOrder(guarantees, ledger.messages);
  judgeFindings(guarantees, ledger);
  const results = Object.values(guarantees).map((guarantee) => guarantee.result());
  return { status: worst(results), guarantees: results, fates, redeliveries, stored };
}

/** Whether the broker certainly had the message. */
const isStored = (message: Message, leases: readonly Lease[]): boolean =>
  message.state === 'confirmed' || leases.length > 0;

/**
 * The messages for which the verdict needs the broker's answer: surely stored, and neither acked
 * nor surely expired.
 */
export function unaccounted(ledger: Ledger, endedAt: number): number[] {
  const isUnaccounted = (message: Message) => fateOf(message, leasesInOrder(message), endedAt) === 'unaccounted';
  return ledger.messages.filter(isUnaccounted).map(({ number }) => number);
}

function judgeFate(
  { kept, notAfterAck }: Guarantees,
  message: Message,
  leases: readonly Lease[],
  fate: Fate,
  { stillThere, unverified }: Evidence,
): void {
  if (isStored(message, leases)) kept.checked();
  if (fate === 'acked' && stillThere.has(message.number)) {
    notAfterAck.broken(message, 'its ack was confirmed, and the broker still has a delivery of it');
  }
  if (fate !== 'unaccounted' || stillThere.has(message.number)) return;
  if (unverified.has(message.number)) {
    kept.unproven(message, 'not acked, not expired, and the broker could not be asked for it');
  } else {
    const known = message.state === 'confirmed' ? 'confirmed' : 'delivered';
    kept.broken(message, `${known}, neither acked nor expired, and gone from the broker`);
  }
}

function judgeContents(unaltered: Guarantee, message: Message, leases: readonly Lease[]): void {
  unaltered.checked(leases.length);
  const altered = leases.find(({ bodyAltered, headersAltered }) => bodyAltered || headersAltered);
  if (altered !== undefined) unaltered.broken(message, `${alteredParts(altered)} came back different`);
}

function judgeExpiry(notAfterExpiry: Guarantee, message: Message, leases: readonly Lease[]): void {
  const lifeMs = message.expiresInSeconds * 1000;
  for (const lease of leases) {
    notAfterExpiry.checked();
    const leftMs = message.expiresOnDatabase - lease.handedOutOnDatabase;
    if (leftMs <= 0) {
      notAfterExpiry.broken(message, `handed out ${-leftMs} ms after its expiresAt, by the database's clock`);
    } else if (lifeMs > 0 && leftMs < lifeMs - (lease.receivedAt - message.sentAt) - CLOCK_SLACK_MS) {
      notAfterExpiry.broken(message, `its expiresAt leaves it less than the ${message.expiresInSeconds} s asked for`);
    } else if (
      lifeMs > 0 &&
      message.state === 'confirmed' &&
      lease.askedAt > message.answeredAt + lifeMs + CLOCK_SLACK_MS
    ) {
      // The enqueue had committed before its answer, so the life began by then at the latest. The
      // dequeue began after its end.
      notAfterExpiry.broken(message, 'answered to a dequeue that began after its life was surely over');
    }
  }
}

function judgeBatches(whole: Guarantee, { messages }: Ledger, { drained }: Evidence): void {
  for (let first = 0; first < messages.length;) {
    const batch = batchAt(messages, first);
    const seen = batch.find(({ leases }) => leases.length > 0);
    const unseen = batch.find(({ expiresInSeconds, leases }) => expiresInSeconds === 0 && leases.length === 0);
    whole.checked();
    if (seen?.state === 'refused') whole.broken(seen, 'its batch was refused, and yet it was delivered');
    else if (drained && seen?.state === 'unknown' && unseen !== undefined) {
      whole.broken(seen, `delivered, but number ${unseen.number} of the same request never was`);
    }
    first += batch.length;
  }
}

/** The messages of the batch that begins at this index. */
function batchAt(messages: readonly Message[], first: number): Message[] {
  let end = first + 1;
  while (messages[end] !== undefined && messages[end]?.batch === messages[first]?.batch) end += 1;
  return messages.slice(first, end);
}

/** Findings that one answer showed by itself; the ledger counted them. */
function judgeFindings({ genuine, unaltered }: Guarantees, ledger: Ledger): void {
  genuine.checked(ledger.leaseCount + ledger.findingCounts.stranger);
  const judges = { stranger: genuine, doubled: genuine, 'wrong-queue': unaltered, 'expiry-changed': unaltered };
  for (const kind of ['stranger', 'doubled', 'wrong-queue', 'expiry-changed'] as const) {
    const count = ledger.findingCounts[kind];
    const texts = ledger.findings.filter((finding) => finding.kind === kind).map(({ text }) => text);
    for (const text of texts) judges[kind].brokenBy(text);
    if (count > texts.length) judges[kind].brokenBy(`${count - texts.length} more like these`, count - texts.length);
  }
}

function worst(results: readonly GuaranteeResult[]): Status {
  const statuses = new Set(results.map(({ status }) => status));
  if (statuses.has('BROKEN')) return 'BROKEN';
  return statuses.has('UNPROVEN') ? 'UNPROVEN' : 'OK';
}
