import type { Deadlocked } from '../../support/deadlock-log.js';

/** Selects deliveries without a lease. Claim, expire, dead-letter, redrive and purge do this. */
const TAKES = /^SELECT [^]{0,500}?\bFROM delivery (?:d )?FORCE INDEX \(delivery_next\)/;

/**
 * Changes leased deliveries: ack, purge, nack, extend, release and reject delete rows that they
 * have locked. A claim does so too, but it holds the index entries, so it cannot wait for one.
 */
const SETTLES = /^DELETE d\b/;

/**
 * True for the one kind of deadlock that remains on MariaDB (docs/decisions/0012). A lease runs out
 * while its ack, nack or extend runs. That statement holds the delivery's row and wants its index
 * entry. A claim holds the entry and briefly wants the row. Every other deadlock is a fault.
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
  return waitsFor === 'delivery_next of delivery' && SETTLES.test(statement);
}
