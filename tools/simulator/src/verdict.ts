import { fateOf, type Fate } from './fate.js';
import { guaranteesOf, type Guarantee, type GuaranteeResult, type Guarantees, type Status } from './guarantee.js';
import { alteredParts } from './history.js';
import { judgeLeases, type RedeliveryCauses } from './lease-verdict.js';
import type { Ledger } from './ledger.js';
import { CLOCK_SLACK_MS, readLeases, readMessage, type LeaseRecord, type MessageRecord } from './ledger-records.js';

/** What was seen on the broker after the last consumer had stopped. */
export interface Evidence {
  /** When it was looked at, on the simulator's clock. */
  endedAt: number;
  /** Every queue reported nothing ready, delayed or leased. */
  drained: boolean;
  /** Messages of which the broker still shows a delivery. */
  stillThere: ReadonlySet<number>;
  /** Messages that nobody accounts for and about which the broker could not be asked. */
  unverified: ReadonlySet<number>;
}

export interface Verdict {
  status: Status;
  guarantees: GuaranteeResult[];
  fates: Record<Fate, number>;
  redeliveries: RedeliveryCauses;
  /** How many messages the broker has stored, delivered since or not: an enqueue without an answer may or may not have stored its own. */
  stored: { atLeast: number; atMost: number };
}

/**
 * Judges a run: every message and every lease in the ledger is looked at.
 *
 * Where an answer was lost, only what follows for certain is held against the broker: an unanswered enqueue may or may not have stored its batch, an unanswered
 * ack may or may not have settled, an unanswered nack may or may not have given back, an unanswered dequeue may have taken leases that nobody saw. That some call failed excuses nothing else.
 */
export function judge(ledger: Ledger, evidence: Evidence): Verdict {
  const guarantees = guaranteesOf(ledger);
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
  for (let message = 1; message <= ledger.messages; message++) {
    const record = readMessage(ledger, message);
    if (record.state === 'planned') continue;
    const leases = readLeases(ledger, message);
    const fate = fateOf(record, leases, evidence.endedAt);
    fates[fate]++;
    if (isStored(record, leases)) stored.atLeast++;
    if (isStored(record, leases) || record.state === 'unknown') stored.atMost++;
    judgeFate(guarantees, record, leases, fate, evidence);
    judgeContents(guarantees.unaltered, message, leases);
    judgeExpiry(guarantees.notAfterExpiry, record, leases);
    judgeLeases(guarantees, redeliveries, ledger, record, leases);
  }
  judgeBatches(guarantees.whole, ledger, evidence);
  judgeFindings(guarantees, ledger);
  const results = Object.values(guarantees).map((guarantee) => guarantee.result());
  return { status: worst(results), guarantees: results, fates, redeliveries, stored };
}

/** Whether it is certain that the broker had the message. */
const isStored = (record: MessageRecord, leases: readonly LeaseRecord[]): boolean =>
  record.state === 'confirmed' || leases.length > 0;

/** The messages about which the broker has to be asked before anything can be said: surely stored, and neither acked nor surely expired. */
export function unaccounted(ledger: Ledger, endedAt: number): number[] {
  const messages: number[] = [];
  for (let message = 1; message <= ledger.messages; message++) {
    const record = readMessage(ledger, message);
    if (fateOf(record, readLeases(ledger, message), endedAt) === 'unaccounted') messages.push(message);
  }
  return messages;
}

function judgeFate(
  { kept, notAfterAck }: Guarantees,
  record: MessageRecord,
  leases: readonly LeaseRecord[],
  fate: Fate,
  { stillThere, unverified }: Evidence,
): void {
  const { message } = record;
  if (isStored(record, leases)) kept.checked();
  if (fate === 'acked' && stillThere.has(message)) {
    notAfterAck.broken(message, 'its ack was confirmed, and the broker still has a delivery of it');
  }
  if (fate !== 'unaccounted' || stillThere.has(message)) return;
  if (unverified.has(message)) {
    kept.unproven(message, 'not acked, not expired, and the broker could not be asked for it');
  } else {
    const known = record.state === 'confirmed' ? 'confirmed' : 'delivered';
    kept.broken(message, `${known}, neither acked nor expired, and gone from the broker`);
  }
}

function judgeContents(unaltered: Guarantee, message: number, leases: readonly LeaseRecord[]): void {
  unaltered.checked(leases.length);
  const altered = leases.find(({ bodyAltered, headersAltered }) => bodyAltered || headersAltered);
  if (altered !== undefined) unaltered.broken(message, `${alteredParts(altered)} came back different`);
}

function judgeExpiry(notAfterExpiry: Guarantee, record: MessageRecord, leases: readonly LeaseRecord[]): void {
  const lifeMs = record.expiresInSeconds * 1000;
  for (const lease of leases) {
    notAfterExpiry.checked();
    const leftMs = record.expiresOnDatabase - lease.handedOutOnDatabase;
    if (leftMs <= 0) {
      notAfterExpiry.broken(record.message, `handed out ${-leftMs} ms after its expiresAt, by the database's clock`);
    } else if (lifeMs > 0 && leftMs < lifeMs - (lease.receivedAt - record.sentAt) - CLOCK_SLACK_MS) {
      notAfterExpiry.broken(
        record.message,
        `its expiresAt leaves it less than the ${record.expiresInSeconds} s asked for`,
      );
    } else if (
      lifeMs > 0 &&
      record.state === 'confirmed' &&
      lease.askedAt > record.answeredAt + lifeMs + CLOCK_SLACK_MS
    ) {
      // The enqueue had committed when it was answered, so by then at the latest its life had begun; the dequeue began after its end.
      notAfterExpiry.broken(record.message, 'answered to a dequeue that began after its life was surely over');
    }
  }
}

function judgeBatches(whole: Guarantee, ledger: Ledger, { drained }: Evidence): void {
  for (let first = 1; first <= ledger.messages;) {
    const batch = readBatch(ledger, first);
    const delivered = batch.filter(({ message }) => ledger.message.lastLease[message] !== 0);
    const seen = delivered[0];
    const unseen = batch.find((record) => record.expiresInSeconds === 0 && !delivered.includes(record));
    whole.checked();
    if (seen?.state === 'refused') whole.broken(seen.message, 'its batch was refused, and yet it was delivered');
    else if (drained && seen?.state === 'unknown' && unseen !== undefined) {
      whole.broken(seen.message, `delivered, but number ${unseen.message} of the same enqueue never was`);
    }
    first += batch.length;
  }
}

function readBatch(ledger: Ledger, first: number): MessageRecord[] {
  const batch: MessageRecord[] = [];
  for (let message = first; message <= ledger.messages && ledger.message.batch[message] === first; message++) {
    batch.push(readMessage(ledger, message));
  }
  return batch;
}

/** Findings that one answer showed by itself; they were counted as they came. */
function judgeFindings({ genuine, unaltered }: Guarantees, ledger: Ledger): void {
  genuine.checked(ledger.leases + ledger.findingCounts.stranger);
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
