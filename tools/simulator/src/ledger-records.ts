import { ENQUEUE, OUTCOME, SETTLE, type Ledger } from './ledger.js';

/** One row of the ledger's messages, with names instead of numbers. Times as in the ledger. */
export interface MessageRecord {
  message: number;
  batch: number;
  queue: number;
  state: keyof typeof ENQUEUE;
  sentAt: number;
  answeredAt: number;
  expiresInSeconds: number;
  /** 0 while no delivery told. */
  expiresOnDatabase: number;
  acked: boolean;
}

/** One row of the ledger's leases, with names instead of numbers. Times as in the ledger. */
export interface LeaseRecord {
  lease: number;
  consumer: number;
  receiveCount: number;
  handedOutOnDatabase: number;
  endsOnDatabase: number;
  extendedOnDatabase: number;
  askedAt: number;
  receivedAt: number;
  heldUntil: number;
  overAt: number;
  extendedLateMs: number;
  settle: keyof typeof SETTLE;
  outcome: keyof typeof OUTCOME;
  settleSentAt: number;
  settleAnsweredAt: number;
  nackDelaySeconds: number;
  bodyAltered: boolean;
  headersAltered: boolean;
}

/** Two machines' clocks run at slightly different speeds: allowed between a span on one and the same span on the other. */
export const CLOCK_SLACK_MS = 50;

const STATES = namesByValue(ENQUEUE);
const SETTLES = namesByValue(SETTLE);
const OUTCOMES = namesByValue(OUTCOME);

export function readMessage(ledger: Ledger, message: number): MessageRecord {
  const row = ledger.message;
  return {
    message,
    batch: row.batch[message] ?? 0,
    queue: row.queue[message] ?? 0,
    state: STATES.get(row.state[message] ?? 0) ?? 'planned',
    sentAt: row.sentAt[message] ?? 0,
    answeredAt: row.answeredAt[message] ?? 0,
    expiresInSeconds: row.expiresInSeconds[message] ?? 0,
    expiresOnDatabase: row.expiresOnDatabase[message] ?? 0,
    acked: row.acked[message] === 1,
  };
}

/** The message's leases in the order in which the database handed them out. */
export function readLeases(ledger: Ledger, message: number): LeaseRecord[] {
  return ledger.leasesOf(message).map((lease) => readLease(ledger, lease));
}

function readLease(ledger: Ledger, lease: number): LeaseRecord {
  const row = ledger.lease;
  return {
    lease,
    consumer: row.consumer[lease] ?? 0,
    receiveCount: row.receiveCount[lease] ?? 0,
    handedOutOnDatabase: row.handedOutOnDatabase[lease] ?? 0,
    endsOnDatabase: row.endsOnDatabase[lease] ?? 0,
    extendedOnDatabase: row.extendedOnDatabase[lease] ?? 0,
    askedAt: row.askedAt[lease] ?? 0,
    receivedAt: row.receivedAt[lease] ?? 0,
    heldUntil: row.heldUntil[lease] ?? 0,
    overAt: row.overAt[lease] ?? 0,
    extendedLateMs: row.extendedLateMs[lease] ?? 0,
    settle: SETTLES.get(row.settle[lease] ?? 0) ?? 'none',
    outcome: OUTCOMES.get(row.outcome[lease] ?? 0) ?? 'none',
    settleSentAt: row.settleSentAt[lease] ?? 0,
    settleAnsweredAt: row.settleAnsweredAt[lease] ?? 0,
    nackDelaySeconds: row.nackDelaySeconds[lease] ?? 0,
    bodyAltered: row.bodyAltered[lease] === 1,
    headersAltered: row.headersAltered[lease] === 1,
  };
}

function namesByValue<Name extends string>(names: Record<Name, number>): Map<number, Name> {
  const keys = Object.keys(names).filter((key): key is Name => key in names);
  return new Map(keys.map((name) => [names[name], name]));
}
