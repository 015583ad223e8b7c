import { formatMessageId, newPackId } from '@rowmq/contract';
import { describe, expect, it } from 'vitest';
import { type Handout, Ledger, LedgerFullError, leasesInOrder, type Message } from './ledger.js';

const handout = (message: Message, id: string): Handout => ({
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

/** A ledger with one batch in it. */
function planned(count: number, maxMessages = 10): { ledger: Ledger; batch: [Message, ...Message[]] } {
  const ledger = new Ledger(maxMessages);
  return { ledger, batch: ledger.planBatch(count, [0]) as [Message, ...Message[]] };
}

describe('Ledger', () => {
  it('refuses more messages than it may remember, and names the options that help', () => {
    const { ledger, batch } = planned(10);
    expect(batch.map(({ number, batch: first }) => [number, first])).toEqual(
      Array.from({ length: 10 }, (_, index) => [index + 1, 1]),
    );
    expect(() => ledger.planBatch(1, [0])).toThrow(LedgerFullError);
    expect(() => ledger.planBatch(1, [0])).toThrow(/full after 10 messages.*--max-messages/);
    expect(ledger.messages).toHaveLength(10);
  });

  it('refuses more than three leases a message', () => {
    const { ledger, batch } = planned(1, 1);
    const id = formatMessageId(newPackId());
    for (let lease = 0; lease < 3; lease++) ledger.handedOut(handout(batch[0], id));
    expect(() => ledger.handedOut(handout(batch[0], id))).toThrow(/full after 3 leases/);
  });

  it('finds a message by its id, also when the delivery comes before the answer to its enqueue', () => {
    const { ledger, batch } = planned(2);
    const ids = [formatMessageId(newPackId()), formatMessageId(newPackId())];
    ledger.handedOut(handout(batch[0], ids[0] ?? ''));
    expect(batch[1]?.id).toBeUndefined();
    ledger.enqueueConfirmed(batch, ids, 5);
    expect(ids.map((id) => ledger.findById(id, 0))).toEqual(batch);
    expect(batch[1]?.id).toBe(ids[1]);
    expect(ledger.findById(ids[0] ?? '', 1)).toBeUndefined();
    expect(ledger.findById(formatMessageId(newPackId()), 0)).toBeUndefined();
    expect(ledger.findings).toEqual([]);
  });

  it('orders leases as the database handed them out, not as consumers received them', () => {
    const { ledger, batch } = planned(1);
    const [message] = batch;
    const id = formatMessageId(newPackId());
    const later = ledger.handedOut({ ...handout(message, id), leaseExpiresOnDatabase: 5000, receiveCount: 2 });
    const earlier = ledger.handedOut(handout(message, id));
    expect(leasesInOrder(message)).toEqual([earlier, later]);
  });
});
