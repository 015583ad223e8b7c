import { randomFillSync } from 'node:crypto';
import { LIMITS } from '@rowmq/contract';

/** Bytes of a lease's token. */
export const TOKEN_BYTES = 8;
/** The first bytes are the time of the lease, in seconds. The others are random. */
const TIME_BYTES = 3;
/** The time goes round in 194 days. */
const ROUND = 2 ** (8 * TIME_BYTES);
/**
 * A message lives 14 days at most. A greater age is not known: the clock of the broker was far
 * ahead.
 */
const MAX_AGE_SECONDS = LIMITS.messageTtlSeconds;
/** A broker's clock may be this far ahead of the database's. */
const SKEW_SECONDS = 3600;

/**
 * The token of a lease that begins now: its time on the broker's clock, and 40 random bits. With
 * the time in it, a delivery tells since when it is leased, and needs no column for that.
 */
export function newLeaseToken(now = Date.now()): Buffer {
  const token = Buffer.allocUnsafe(TOKEN_BYTES);
  token.writeUIntBE(Math.floor(now / 1000) % ROUND, 0, TIME_BYTES);
  return randomFillSync(token, TIME_BYTES);
}

/**
 * When the lease of this token began, in ms since 1970. `now` is the database's time. Null if that
 * is not known.
 */
export function leasedAt(token: Buffer, now: number): number | null {
  const seconds = Math.floor(now / 1000);
  const age = (((seconds + SKEW_SECONDS - token.readUIntBE(0, TIME_BYTES)) % ROUND) + ROUND) % ROUND;
  return age > SKEW_SECONDS + MAX_AGE_SECONDS ? null : Math.min(now, (seconds + SKEW_SECONDS - age) * 1000);
}

/**
 * {@link leasedAt} in SQL: the seconds since the lease of the column `lease_token` began, at the
 * time `now` in ms. It is a little below zero if the broker's clock was ahead. It is NULL if it is
 * not known.
 */
export const leaseAgeSql = (now: string): string => {
  const age = `((${now} DIV 1000 + ${SKEW_SECONDS} - CONV(HEX(LEFT(lease_token, ${TIME_BYTES})), 16, 10)) & ${ROUND - 1})`;
  return `CASE WHEN ${age} <= ${SKEW_SECONDS + MAX_AGE_SECONDS} THEN CAST(${age} AS SIGNED) - ${SKEW_SECONDS} END`;
};
