import type { Deadlocked } from '../../support/deadlock-log.js';

/**
 * Takes deliveries that are under no lease: a claim, or expire, dead-letter, redrive or purge,
 * which take them like one.
 */
const TAKES = /^SELECT [^]{0,300}?\bFROM delivery FORCE INDEX \(delivery_next\)/;

/**
 * Ends or moves a lease, or deletes or moves what is under it: ack, purge; nack, extend, release; a
 * dead-lettering nack, which gives a reason. Not a claim's own change, which counts a hand-out.
 */
const SETTLES = [
  /^DELETE d\b/,
  /^UPDATE delivery FORCE INDEX \(PRIMARY\)\s+SET available_at = (?![^]*receive_count = LEAST\()/,
  /^UPDATE delivery FORCE INDEX \(PRIMARY\)\s+SET queue_id = [^]*nack_reason = COALESCE\('/,
];

/**
 * Whether a deadlock of MariaDB is the one that docs/decisions/0012 says remains: an ack, nack or
 * extend whose lease ran out on the way has a delivery's row and wants its index entry, while a
 * claim has the entry and, for an instant, wants the row. Every other is a fault.
 */
export function isOverslept(deadlock: readonly Deadlocked[]): boolean {
  const [one, other] = deadlock;
  if (one === undefined || other === undefined || deadlock.length > 2) return false;
  return [
    [one, other],
    [other, one],
  ].some(([takes, settles]) => wantsRow(takes as Deadlocked) && wantsEntry(settles as Deadlocked));
}

function wantsRow({ statement, waitsFor }: Deadlocked): boolean {
  return waitsFor === 'PRIMARY of delivery' && TAKES.test(statement);
}

function wantsEntry({ statement, waitsFor }: Deadlocked): boolean {
  return waitsFor === 'delivery_next of delivery' && SETTLES.some((pattern) => pattern.test(statement));
}
