import { formatMessageId, newMessageId } from '@rowmq/contract';
import { describe, expect, it } from 'vitest';
import { Columns } from './columns.js';
import { Ledger, LedgerFullError, type Handout } from './ledger.js';

describe('Columns', () => {
  it('keeps what is in it while it grows, up to its bound and not beyond', () => {
    const table = new Columns(100_000);
    const numbers = table.column(Float64Array);
    const pairs = table.column(Uint8Array, 2);
    expect(table.add(1)).toBe(0);
    numbers[0] = 1.5;
    pairs.set([7, 8], 0);
    expect(table.add(99_999)).toBe(1);
    numbers[99_999] = 2.5;
    pairs.set([9, 10], 199_998);
    expect([numbers[0], pairs[1], numbers[99_999], pairs[199_999]]).toEqual([1.5, 8, 2.5, 10]);
    expect(table.add(1)).toBeUndefined();
    expect(table.rows).toBe(100_000);
  });
});

const handout = (message: number, id: string): Handout => ({
  message,
  queue: 0,
  id,
  consumer: 0,
  content: { bodyCrc: 0, headersCrc: 0 },
  receiveCount: 1,
  leaseMs: 1000,
  leaseExpiresOnDatabase: 2000,
  expiresOnDatabase: 9000,
  askedAt: 0,
  receivedAt: 1,
});

describe('Ledger', () => {
  it('refuses more messages than it may remember, and says what to do', () => {
    const ledger = new Ledger(10);
    expect(ledger.planBatch(10, 0)).toBe(1);
    expect(() => ledger.planBatch(1, 0)).toThrow(LedgerFullError);
    expect(() => ledger.planBatch(1, 0)).toThrow(/full after 10 messages.*--max-messages/);
  });

  it('refuses more leases than it may remember', () => {
    const ledger = new Ledger(1);
    const message = ledger.planBatch(1, 0);
    const id = formatMessageId(newMessageId());
    for (let lease = 0; lease < 3; lease++) ledger.handedOut(handout(message, id));
    expect(() => ledger.handedOut(handout(message, id))).toThrow(/full after 3 leases/);
  });

  it('finds a message by its id, also when the delivery comes before the answer to its enqueue', () => {
    const ledger = new Ledger(10);
    const first = ledger.planBatch(2, 0);
    const ids = [formatMessageId(newMessageId()), formatMessageId(newMessageId())];
    ledger.handedOut(handout(first, ids[0] ?? ''));
    expect(ledger.idOf(first + 1)).toBeUndefined();
    ledger.enqueueConfirmed(first, ids, 5);
    expect(ids.map((id) => ledger.findById(id))).toEqual([first, first + 1]);
    expect(ledger.idOf(first + 1)).toBe(ids[1]);
    expect(ledger.findById(formatMessageId(newMessageId()))).toBeUndefined();
    expect(ledger.findings).toEqual([]);
  });

  it('answers leases in the order in which they were handed out, not in which they were received', () => {
    const ledger = new Ledger(10);
    const message = ledger.planBatch(1, 0);
    const id = formatMessageId(newMessageId());
    const later = ledger.handedOut({ ...handout(message, id), leaseExpiresOnDatabase: 5000, receiveCount: 2 });
    const earlier = ledger.handedOut(handout(message, id));
    expect(ledger.leasesOf(message)).toEqual([earlier, later]);
  });
});
