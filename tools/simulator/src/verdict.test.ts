import { formatMessageId, newPackId } from '@rowmq/contract';
import { describe, expect, it } from 'vitest';
import { type Handout, type Lease, Ledger, type Outcome } from './ledger.js';
import { judge, unaccounted, type Evidence, type Verdict } from './verdict.js';

/** The database's clock when the simulator's shows 0. */
const EPOCH = Date.UTC(2026, 0, 1);
const LEASE_MS = 3000;
const DAY_MS = 86_400_000;
const CONTENT = { bodyCrc: 17, headersCrc: 42 };
const EVIDENCE: Evidence = { endedAt: 60_000, drained: true, stillThere: new Set(), unverified: new Set() };

/** A ledger to write a story into: times are ms since the run began, on both clocks alike. */
class Story {
  readonly ledger = new Ledger(1000);
  readonly #ids = new Map<number, string>();

  /** Returns the number of the first message, for the first of the queues. */
  enqueue({ at = 0, count = 1, expiresInSeconds = 0, outcome = 'confirmed', queues = [0] } = {}): number {
    const batch = this.ledger.planBatch(count, queues);
    for (const [index, message] of batch.entries()) {
      Object.assign(message, CONTENT, { expiresInSeconds });
      const isCopy = index % queues.length > 0;
      const id = isCopy ? this.#ids.get(message.number - 1) : undefined;
      this.#ids.set(message.number, id ?? formatMessageId(newPackId()));
    }
    const ids = batch.map(({ number }) => this.#ids.get(number) ?? '');
    this.ledger.enqueueSent(batch, at);
    if (outcome === 'confirmed') this.ledger.enqueueConfirmed(batch, ids, at + 5);
    if (outcome === 'refused') this.ledger.enqueueRefused(batch);
    return batch[0]?.number ?? 0;
  }

  /** Hands out at `at` by the database's clock, received 2 ms later. */
  handOut(number: number, at: number, changes: Partial<Handout> = {}): Lease {
    const message = this.ledger.messageOf(number);
    if (message === undefined) throw new Error(`nobody enqueued message ${number}`);
    const lifeMs = message.expiresInSeconds * 1000 || DAY_MS;
    return this.ledger.handedOut({
      message,
      queue: 0,
      id: this.#ids.get(number) ?? '',
      consumer: 0,
      content: CONTENT,
      receiveCount: 1,
      leaseMs: LEASE_MS,
      leaseExpiresOnDatabase: EPOCH + at + LEASE_MS,
      expiresOnDatabase: EPOCH + lifeMs + 2,
      askedAt: at - 2,
      receivedAt: at + 2,
      ...changes,
    });
  }

  settle(lease: Lease, kind: 'ack' | 'nack', at: number, outcome: Outcome = 'confirmed', delay = 0): void {
    this.ledger.settling(lease, kind, at, delay);
    if (outcome !== 'unknown') this.ledger.settled(lease, outcome, at + 3);
  }

  judge(evidence: Partial<Evidence> = {}): Verdict {
    return judge(this.ledger, { ...EVIDENCE, ...evidence });
  }
}

/** The guarantees that are not OK, each with the first reason. */
function faults(verdict: Verdict): Record<string, string> {
  return Object.fromEntries(
    verdict.guarantees
      .filter(({ status }) => status !== 'OK')
      .map(({ guarantee, status, examples }) => [guarantee, `${status}: ${examples[0]?.why ?? ''}`]),
  );
}

const LOST = 'Nothing is lost';
const WHOLE = 'A batch is stored whole or not at all';
const ALTERED = 'Nothing is altered';
const GENUINE = 'Nothing is doubled or invented';
const ORDERED = 'Messages of a group come in order';
const AFTER_ACK = 'Nothing is delivered after its ack';
const AFTER_EXPIRY = 'Nothing is delivered after its expiry';
const EXCLUSIVE = 'A message has one valid lease at a time';
const FENCED = 'Only the current lease settles or extends';
const EXPLAINED = 'Every redelivery has its reason';

describe('a topic with two subscribers', () => {
  const published = { count: 2, queues: [0, 1] };

  it('is OK when each subscriber gets each message', () => {
    const story = new Story();
    const first = story.enqueue(published);
    for (const offset of [0, 1, 2, 3])
      story.settle(story.handOut(first + offset, 20, { queue: offset % 2 }), 'ack', 30);
    const verdict = story.judge();
    expect(faults(verdict)).toEqual({});
    expect(verdict.fates).toMatchObject({ acked: 4 });
  });

  it('has lost a message that one of them never gets', () => {
    const story = new Story();
    const first = story.enqueue(published);
    for (const offset of [0, 1, 2]) story.settle(story.handOut(first + offset, 20, { queue: offset % 2 }), 'ack', 30);
    expect(faults(story.judge())).toEqual({ [LOST]: expect.stringMatching(/^BROKEN: confirmed, neither acked/) });
  });

  it('stores a publish without an answer for both of them, or for neither', () => {
    const story = new Story();
    const first = story.enqueue({ ...published, outcome: 'unknown' });
    for (const offset of [0, 2]) story.settle(story.handOut(first + offset, 20), 'ack', 30);
    expect(faults(story.judge())).toEqual({ [WHOLE]: expect.stringMatching(/never was$/) });
  });
});

describe('a broker that keeps its word', () => {
  it('is OK when a message is enqueued, delivered and acked', () => {
    const story = new Story();
    story.settle(story.handOut(story.enqueue(), 20), 'ack', 30);
    const verdict = story.judge();
    expect(faults(verdict)).toEqual({});
    expect(verdict.status).toBe('OK');
    expect(verdict.fates).toMatchObject({ acked: 1, unaccounted: 0 });
  });

  it('may hand a message out again when its lease ran out', () => {
    const story = new Story();
    const message = story.enqueue();
    story.handOut(message, 20);
    story.settle(story.handOut(message, 20 + LEASE_MS, { receiveCount: 2 }), 'ack', 4000);
    const verdict = story.judge();
    expect(faults(verdict)).toEqual({});
    expect(verdict.redeliveries).toEqual({ ranOut: 1, nack: 0, nackUnanswered: 0, answerLost: 0 });
  });

  it('may hand a message out again after a nack, once the delay is over', () => {
    const story = new Story();
    const message = story.enqueue();
    story.settle(story.handOut(message, 20), 'nack', 30, 'confirmed', 1);
    story.settle(story.handOut(message, 1032, { receiveCount: 2 }), 'ack', 1040);
    expect(faults(story.judge())).toEqual({});
  });

  it('may hand a message out again after a nack that got no answer', () => {
    const story = new Story();
    const message = story.enqueue();
    story.settle(story.handOut(message, 20), 'nack', 30, 'unknown');
    story.settle(story.handOut(message, 40, { receiveCount: 2 }), 'ack', 50);
    const verdict = story.judge();
    expect(faults(verdict)).toEqual({});
    expect(verdict.redeliveries.nackUnanswered).toBe(1);
  });

  it('may refuse the ack of a lease that ran out', () => {
    const story = new Story();
    const message = story.enqueue();
    const late = story.handOut(message, 20);
    story.settle(story.handOut(message, 3100, { receiveCount: 2 }), 'ack', 3200);
    story.settle(late, 'ack', 3300, 'notFound');
    expect(faults(story.judge())).toEqual({});
  });

  it('may remove an expired message, even under a lease', () => {
    const story = new Story();
    const message = story.enqueue({ expiresInSeconds: 1 });
    story.settle(story.handOut(message, 500), 'ack', 1500, 'notFound');
    const verdict = story.judge();
    expect(faults(verdict)).toEqual({});
    expect(verdict.fates.expired).toBe(1);
  });

  it('may still have a message that nobody received', () => {
    const story = new Story();
    const message = story.enqueue();
    expect(unaccounted(story.ledger, 60_000)).toEqual([message]);
    expect(faults(story.judge({ drained: false, stillThere: new Set([message]) }))).toEqual({});
  });

  it('may have carried out an ack without answering it', () => {
    const story = new Story();
    story.settle(story.handOut(story.enqueue(), 20), 'ack', 30, 'unknown');
    const verdict = story.judge();
    expect(faults(verdict)).toEqual({});
    expect(verdict.fates.ackUnanswered).toBe(1);
  });

  it('may or may not have stored an enqueue that it did not answer', () => {
    const story = new Story();
    story.enqueue({ outcome: 'unknown' });
    story.settle(story.handOut(story.enqueue({ outcome: 'unknown' }), 20), 'ack', 30);
    expect(faults(story.judge())).toEqual({});
  });

  it('may have handed a message to a dequeue whose answer was lost', () => {
    const story = new Story();
    const message = story.enqueue();
    story.ledger.dequeueUnanswered({ queue: 0, askedAt: 10, endedAt: 15 });
    story.settle(story.handOut(message, 3100, { receiveCount: 2 }), 'ack', 3200);
    const verdict = story.judge();
    expect(faults(verdict)).toEqual({});
    expect(verdict.redeliveries.answerLost).toBe(1);
  });

  it('may confirm an ack, in doubt for longer than its lease, when the next holder has acked the message', () => {
    const story = new Story();
    const message = story.enqueue();
    const inDoubt = story.handOut(message, 20);
    story.settle(inDoubt, 'ack', 30, 'unknown');
    story.settle(story.handOut(message, 3300, { receiveCount: 2 }), 'ack', 3310);
    story.ledger.settled(inDoubt, 'confirmed', 3400);
    const verdict = story.judge();
    expect(faults(verdict)).toEqual({});
    expect(verdict.redeliveries.ranOut).toBe(1);
  });

  it('may refuse a nack, in doubt for longer than its lease, that it has carried out', () => {
    const story = new Story();
    const message = story.enqueue();
    const inDoubt = story.handOut(message, 20);
    story.settle(inDoubt, 'nack', 30, 'unknown');
    story.settle(story.handOut(message, 2000, { receiveCount: 2 }), 'ack', 2010);
    story.ledger.settled(inDoubt, 'leaseLost', 3400);
    expect(faults(story.judge())).toEqual({});
  });

  it('may have handed a message to a dequeue that it answered so late that its first claim had run out', () => {
    const story = new Story();
    const message = story.enqueue();
    story.ledger.dequeueAnswered({ queue: 0, askedAt: 10, endedAt: 10 + LEASE_MS }, LEASE_MS);
    story.settle(story.handOut(message, 3100, { receiveCount: 2 }), 'ack', 3200);
    expect(faults(story.judge())).toEqual({});
  });

  it('may have leased a nacked message to one unanswered dequeue after the other, each for a whole lease', () => {
    const story = new Story();
    const message = story.enqueue();
    story.settle(story.handOut(message, 20), 'nack', 30, 'confirmed', 1);
    for (const askedAt of [1030, 4040]) story.ledger.dequeueUnanswered({ queue: 0, askedAt, endedAt: askedAt + 5 });
    story.settle(story.handOut(message, 1030 + 2 * LEASE_MS, { receiveCount: 4 }), 'ack', 7100);
    expect(faults(story.judge())).toEqual({});
  });

  it('may have leased a message to an unanswered dequeue after the lease of an unanswered nack had run out', () => {
    const story = new Story();
    const message = story.enqueue();
    story.settle(story.handOut(message, 20), 'nack', 30, 'unknown', 60);
    story.ledger.dequeueUnanswered({ queue: 0, askedAt: 3020, endedAt: 3025 });
    story.settle(story.handOut(message, 20 + 2 * LEASE_MS, { receiveCount: 3 }), 'ack', 6100);
    expect(faults(story.judge())).toEqual({});
  });

  it('may accept an ack that was sent while the lease may still have been held', () => {
    const story = new Story();
    const lease = story.handOut(story.enqueue(), 20, { receivedAt: 500 });
    story.settle(lease, 'ack', 500 + LEASE_MS + 50);
    expect(faults(story.judge())).toEqual({});
  });

  it('may accept an ack long after an extend that got no answer', () => {
    const story = new Story();
    const lease = story.handOut(story.enqueue(), 20);
    story.ledger.extendUnanswered(lease, LEASE_MS, 1000);
    story.settle(lease, 'ack', 5000);
    expect(faults(story.judge())).toEqual({});
  });

  it('may accept an ack, and a further extend, under an extended lease', () => {
    const story = new Story();
    const lease = story.handOut(story.enqueue(), 20);
    for (const at of [2000, 4000]) story.ledger.extended(lease, LEASE_MS, EPOCH + at + LEASE_MS, at - 2, at + 2);
    story.settle(lease, 'ack', 6900);
    expect(faults(story.judge())).toEqual({});
  });

  it('may have dropped an enqueue that it did not confirm, and a delivery proves that it stored one', () => {
    const story = new Story();
    story.enqueue({ outcome: 'unknown' });
    story.enqueue({ outcome: 'refused' });
    story.settle(story.handOut(story.enqueue({ outcome: 'unknown' }), 20), 'ack', 30);
    story.settle(story.handOut(story.enqueue(), 20), 'ack', 30);
    const { status, stored } = story.judge();
    expect({ status, stored }).toEqual({ status: 'OK', stored: { atLeast: 2, atMost: 3 } });
  });

  it('may remove an expired message that it delivered but never confirmed', () => {
    const story = new Story();
    const message = story.enqueue({ expiresInSeconds: 1, outcome: 'unknown' });
    story.settle(story.handOut(message, 500), 'nack', 510);
    expect(story.ledger.lastExpiryAt).toBe(1502);
    const verdict = story.judge();
    expect(faults(verdict)).toEqual({});
    expect(verdict.fates.expired).toBe(1);
  });

  it('may redeliver a message only after the deadline of its extended lease', () => {
    const story = new Story();
    const message = story.enqueue();
    const lease = story.handOut(message, 20);
    story.ledger.extended(lease, LEASE_MS, EPOCH + 2000 + LEASE_MS, 1998, 2002);
    story.settle(story.handOut(message, 5000, { receiveCount: 2 }), 'ack', 5010);
    expect(faults(story.judge())).toEqual({});
  });

  it('may redeliver a message at its old deadline after an extend that got no answer', () => {
    const story = new Story();
    const message = story.enqueue();
    const lease = story.handOut(message, 20);
    story.ledger.extendUnanswered(lease, 1000, 30);
    story.settle(story.handOut(message, 1035, { receiveCount: 2 }), 'ack', 1040);
    expect(faults(story.judge())).toEqual({});
  });
});

describe('a broker that breaks its word', () => {
  it('is caught losing a message', () => {
    const story = new Story();
    story.enqueue();
    expect(faults(story.judge())).toEqual({
      [LOST]: 'BROKEN: confirmed, neither acked nor expired, and gone from the broker',
    });
  });

  it('is caught losing a message that was delivered but never acked', () => {
    const story = new Story();
    story.handOut(story.enqueue(), 20);
    expect(faults(story.judge())).toHaveProperty([LOST]);
  });

  it('is caught losing a message that it delivered but never confirmed', () => {
    const story = new Story();
    story.handOut(story.enqueue({ outcome: 'unknown' }), 20);
    expect(faults(story.judge())).toEqual({
      [LOST]: 'BROKEN: delivered, neither acked nor expired, and gone from the broker',
    });
  });

  it('is caught deleting a message under a lease that is held, whatever else failed in the run', () => {
    const story = new Story();
    const message = story.enqueue();
    story.settle(story.handOut(message, 20), 'ack', 30, 'notFound');
    // An outage, with unknown outcomes of all kinds.
    story.enqueue({ at: 40_000, outcome: 'unknown' });
    story.ledger.dequeueUnanswered({ queue: 0, askedAt: 40_000, endedAt: 50_000 });
    story.settle(story.handOut(story.enqueue({ at: 40_000 }), 40_020), 'ack', 40_030, 'unknown');
    const verdict = story.judge();
    expect(verdict.status).toBe('BROKEN');
    expect(faults(verdict)).toEqual({
      [LOST]: 'BROKEN: confirmed, neither acked nor expired, and gone from the broker',
      [FENCED]: 'BROKEN: ack was refused although the lease was surely still held',
    });
  });

  it('is caught losing a message although an ack of an earlier lease got no answer', () => {
    const story = new Story();
    const message = story.enqueue();
    story.settle(story.handOut(message, 20), 'ack', 30, 'unknown');
    story.handOut(message, 20 + LEASE_MS, { receiveCount: 2 });
    expect(faults(story.judge())).toHaveProperty([LOST], expect.stringContaining('BROKEN'));
  });

  it('is not blamed for a message about which it did not answer: that one is unproven', () => {
    const story = new Story();
    const message = story.enqueue();
    const verdict = story.judge({ unverified: new Set([message]) });
    expect(verdict.status).toBe('UNPROVEN');
    expect(faults(verdict)).toHaveProperty([LOST], expect.stringContaining('UNPROVEN'));
  });

  it.each([
    ['body', { bodyCrc: 18, headersCrc: 42 }],
    ['headers or priority', { bodyCrc: 17, headersCrc: 43 }],
  ])('is caught altering the %s', (part, content) => {
    const story = new Story();
    story.settle(story.handOut(story.enqueue(), 20, { content }), 'ack', 30);
    expect(faults(story.judge())).toEqual({ [ALTERED]: `BROKEN: ${part} came back different` });
  });

  it("is caught changing a message's expiry or queue", () => {
    const story = new Story();
    const message = story.enqueue();
    story.handOut(message, 20);
    story.settle(
      story.handOut(message, 4000, { receiveCount: 2, queue: 1, expiresOnDatabase: EPOCH + 9e6 }),
      'ack',
      4010,
    );
    const verdict = story.judge();
    expect(verdict.guarantees.find(({ guarantee }) => guarantee === ALTERED)?.broken).toBe(2);
  });

  it('is caught delivering after a confirmed ack', () => {
    const story = new Story();
    const message = story.enqueue();
    story.settle(story.handOut(message, 20), 'ack', 30);
    story.handOut(message, 3100, { receiveCount: 2 });
    expect(faults(story.judge())).toEqual({ [AFTER_ACK]: 'BROKEN: handed out again after a confirmed ack' });
  });

  it.each([
    ['before the next holder acked the message', 3305, 'ack'],
    ['though the next holder did not ack the message', 3400, 'nack'],
    ['while its lease was held', 2900, 'ack'],
  ] as const)('is caught delivering after an ack that it confirmed %s', (_, answeredAt, kind) => {
    const story = new Story();
    const message = story.enqueue();
    const first = story.handOut(message, 20);
    story.settle(first, 'ack', 30, 'unknown');
    story.settle(story.handOut(message, 3300, { receiveCount: 2 }), kind, 3310);
    story.ledger.settled(first, 'confirmed', answeredAt);
    expect(faults(story.judge())).toEqual({ [AFTER_ACK]: 'BROKEN: handed out again after a confirmed ack' });
  });

  it('is caught keeping a message whose ack it confirmed', () => {
    const story = new Story();
    const message = story.enqueue();
    story.settle(story.handOut(message, 20), 'ack', 30);
    expect(faults(story.judge({ drained: false, stillThere: new Set([message]) }))).toHaveProperty([AFTER_ACK]);
  });

  it("is caught delivering after the expiry, by the database's clock", () => {
    const story = new Story();
    const message = story.enqueue({ expiresInSeconds: 1 });
    story.handOut(message, 1002, { askedAt: 900 });
    expect(faults(story.judge())).toEqual({
      [AFTER_EXPIRY]: "BROKEN: handed out 0 ms after its expiresAt, by the database's clock",
    });
  });

  it('is caught delivering after the expiry, whatever times its answer tells', () => {
    const story = new Story();
    const message = story.enqueue({ expiresInSeconds: 1 });
    story.handOut(message, 1500, { leaseExpiresOnDatabase: EPOCH + 900 + LEASE_MS });
    expect(faults(story.judge())).toEqual({
      [AFTER_EXPIRY]: 'BROKEN: answered to a dequeue that began after its life was surely over',
    });
  });

  it('is caught giving a message a shorter life than it asked for', () => {
    const story = new Story();
    const message = story.enqueue({ expiresInSeconds: 3 });
    story.settle(story.handOut(message, 20, { expiresOnDatabase: EPOCH + 1000 }), 'ack', 30);
    expect(faults(story.judge())).toHaveProperty([AFTER_EXPIRY]);
  });

  it('is caught giving two valid leases', () => {
    const story = new Story();
    const message = story.enqueue();
    story.handOut(message, 20);
    story.settle(story.handOut(message, 2020, { receiveCount: 2 }), 'ack', 2030);
    expect(faults(story.judge())).toEqual({
      [EXCLUSIVE]: "BROKEN: handed out again 1000 ms before the lease before it ended, by the database's clock",
    });
  });

  it('is caught giving two valid leases when it refused to nack the first', () => {
    const story = new Story();
    const message = story.enqueue();
    story.settle(story.handOut(message, 20), 'nack', 30, 'leaseLost');
    story.settle(story.handOut(message, 2000, { receiveCount: 2 }), 'ack', 2010);
    expect(faults(story.judge())).toHaveProperty([EXCLUSIVE]);
  });

  it('is caught giving the same lease to two consumers', () => {
    const story = new Story();
    const message = story.enqueue();
    story.handOut(message, 20);
    story.settle(story.handOut(message, 20, { consumer: 1 }), 'ack', 30);
    expect(faults(story.judge())).toEqual({ [EXCLUSIVE]: 'BROKEN: delivered twice under one lease' });
  });

  it('is caught redelivering under an extended lease', () => {
    const story = new Story();
    const message = story.enqueue();
    const lease = story.handOut(message, 20);
    story.ledger.extended(lease, LEASE_MS, EPOCH + 2000 + LEASE_MS, 1998, 2002);
    story.settle(story.handOut(message, 3100, { receiveCount: 2 }), 'ack', 3110);
    expect(faults(story.judge())).toHaveProperty([EXCLUSIVE]);
  });

  it('is caught redelivering after an unanswered ack while the lease would still run', () => {
    const story = new Story();
    const message = story.enqueue();
    story.settle(story.handOut(message, 20), 'ack', 30, 'unknown');
    story.settle(story.handOut(message, 500, { receiveCount: 2 }), 'ack', 510);
    expect(faults(story.judge())).toHaveProperty([EXCLUSIVE]);
  });

  it.each(['ack', 'nack'] as const)('is caught accepting a stale %s', (kind) => {
    const story = new Story();
    const message = story.enqueue();
    const stale = story.handOut(message, 20);
    const current = story.handOut(message, 3100, { receiveCount: 2 });
    story.settle(stale, kind, 3200);
    story.settle(current, 'ack', 3300, kind === 'ack' ? 'notFound' : 'leaseLost');
    expect(faults(story.judge())).toHaveProperty([FENCED], expect.stringContaining(`${kind} was accepted after`));
  });

  it('is caught accepting a stale extend', () => {
    const story = new Story();
    const message = story.enqueue();
    const stale = story.handOut(message, 20);
    story.settle(story.handOut(message, 3100, { receiveCount: 2 }), 'ack', 3400);
    story.ledger.extended(stale, LEASE_MS, EPOCH + 3200 + LEASE_MS, 3198, 3202);
    expect(faults(story.judge())).toHaveProperty([FENCED], expect.stringContaining('an extend was accepted after'));
  });

  it.each(['ack', 'nack'] as const)(
    'is caught accepting the %s of a lease that ran out, though nobody has had the message since',
    (kind) => {
      const story = new Story();
      const message = story.enqueue();
      story.settle(story.handOut(message, 20), kind, 20 + LEASE_MS + 60);
      if (kind === 'nack') story.settle(story.handOut(message, 4000, { receiveCount: 2 }), 'ack', 4010);
      expect(faults(story.judge())).toEqual({
        [FENCED]: `BROKEN: ${kind} was accepted after the lease had surely run out`,
      });
    },
  );

  it('is caught accepting the extend of a lease that ran out although nobody has had the message since', () => {
    const story = new Story();
    const lease = story.handOut(story.enqueue(), 20);
    story.ledger.extended(lease, LEASE_MS, EPOCH + 3200 + LEASE_MS, 3198, 3202);
    story.settle(lease, 'ack', 3300);
    expect(faults(story.judge())).toEqual({
      [FENCED]: 'BROKEN: an extend was accepted after the lease had surely run out',
    });
  });

  it('is caught accepting an ack after the deadline that an extend had set', () => {
    const story = new Story();
    const lease = story.handOut(story.enqueue(), 20);
    story.ledger.extended(lease, LEASE_MS, EPOCH + 2000 + LEASE_MS, 1998, 2002);
    story.settle(lease, 'ack', 2002 + LEASE_MS + 60);
    expect(faults(story.judge())).toHaveProperty([FENCED], expect.stringContaining('surely run out'));
  });

  it('is caught refusing the ack of a lease that is held', () => {
    const story = new Story();
    const message = story.enqueue();
    story.settle(story.handOut(message, 20), 'ack', 30, 'leaseLost');
    story.settle(story.handOut(message, 3100, { receiveCount: 2 }), 'ack', 3200);
    expect(faults(story.judge())).toHaveProperty([FENCED], expect.stringContaining('surely still held'));
  });

  it('is caught redelivering before the delay of a nack is over', () => {
    const story = new Story();
    const message = story.enqueue();
    story.settle(story.handOut(message, 20), 'nack', 30, 'confirmed', 2);
    story.settle(story.handOut(message, 1000, { receiveCount: 2 }), 'ack', 1010);
    expect(faults(story.judge())).toHaveProperty([EXPLAINED], expect.stringContaining('delay of 2 s'));
  });

  it('is caught redelivering before the delay of an unanswered nack is over', () => {
    const story = new Story();
    const message = story.enqueue();
    story.settle(story.handOut(message, 20), 'nack', 30, 'unknown', 2);
    story.settle(story.handOut(message, 200, { receiveCount: 2 }), 'ack', 210);
    expect(faults(story.judge())).toEqual({
      [EXCLUSIVE]: "BROKEN: handed out again 2820 ms before the lease before it ended, by the database's clock",
    });
  });

  it('is caught counting more hand-outs than there were dequeues', () => {
    const story = new Story();
    story.settle(story.handOut(story.enqueue(), 20, { receiveCount: 3 }), 'ack', 30);
    expect(faults(story.judge())).toHaveProperty([EXPLAINED], expect.stringContaining('2 more hand-outs'));
  });

  it.each([
    // The nack makes room for nothing: 60 ms later two more hand-outs are said to have been.
    ['after a nack', { nackedAt: 30, at: 100, receiveCount: 4 }],
    ['after a lease that ran out', { nackedAt: undefined, at: 20 + LEASE_MS + 1000, receiveCount: 3 }],
  ])(
    'is caught counting hand-outs for which there was no time, however many dequeues got no answer: %s',
    (_, { nackedAt, at, receiveCount }) => {
      const story = new Story();
      const message = story.enqueue();
      const lease = story.handOut(message, 20);
      if (nackedAt !== undefined) story.settle(lease, 'nack', nackedAt);
      for (let index = 0; index < 10; index++)
        story.ledger.dequeueUnanswered({ queue: 0, askedAt: -20_000, endedAt: -19_000 });
      story.settle(story.handOut(message, at, { receiveCount }), 'ack', at + 10);
      expect(faults(story.judge())).toEqual({
        [EXPLAINED]: expect.stringMatching(/BROKEN: \d hand-outs that nobody saw do not fit/),
      });
    },
  );

  it('is caught counting a hand-out before the first for which there was no time', () => {
    const story = new Story();
    const message = story.enqueue({ at: 1000 });
    story.ledger.dequeueUnanswered({ queue: 0, askedAt: 1001, endedAt: 1005 });
    story.settle(story.handOut(message, 1020, { receiveCount: 2 }), 'ack', 1030);
    expect(faults(story.judge())).toHaveProperty([EXPLAINED], expect.stringContaining('do not fit into 22 ms'));
  });

  it('is caught counting an unseen hand-out when every dequeue was answered in time', () => {
    const story = new Story();
    const message = story.enqueue();
    story.ledger.dequeueAnswered({ queue: 0, askedAt: 10, endedAt: 9 + LEASE_MS }, LEASE_MS);
    story.settle(story.handOut(message, 3100, { receiveCount: 2 }), 'ack', 3200);
    expect(faults(story.judge())).toHaveProperty([EXPLAINED], expect.stringContaining('1 more hand-outs'));
  });

  it('is caught not counting a redelivery', () => {
    const story = new Story();
    const message = story.enqueue();
    story.handOut(message, 20);
    story.settle(story.handOut(message, 3100), 'ack', 3200);
    expect(faults(story.judge())).toHaveProperty([EXPLAINED], expect.stringContaining('receiveCount was 1, then 1'));
  });

  it('is caught delivering a message that it refused', () => {
    const story = new Story();
    story.settle(story.handOut(story.enqueue({ outcome: 'refused' }), 20), 'ack', 30);
    expect(faults(story.judge())).toHaveProperty([WHOLE]);
  });

  it('is caught storing half of a batch', () => {
    const story = new Story();
    story.settle(story.handOut(story.enqueue({ count: 2, outcome: 'unknown' }), 20), 'ack', 30);
    expect(faults(story.judge())).toHaveProperty([WHOLE]);
  });

  it('is caught storing a message twice', () => {
    const story = new Story();
    const message = story.enqueue();
    story.settle(story.handOut(message, 20), 'ack', 30);
    story.handOut(message, 20, { id: formatMessageId(newPackId()) });
    expect(faults(story.judge())).toHaveProperty([GENUINE], expect.stringContaining('two ids'));
  });

  it('is caught inventing a message', () => {
    const story = new Story();
    story.ledger.found('stranger', 'queue 1 delivered something');
    expect(faults(story.judge())).toEqual({ [GENUINE]: 'BROKEN: queue 1 delivered something' });
  });
});

describe('a broker that hands out a group in its order', () => {
  /** Two messages of one group, the first with the lower id. */
  function pair(story: Story): [number, number] {
    const first = story.enqueue({ count: 2 });
    for (const number of [first, first + 1]) Object.assign(story.ledger.messageOf(number) ?? {}, { group: 1 });
    return [first, first + 1];
  }

  it('may hand out two messages together, and the second alone once the first is settled', () => {
    const story = new Story();
    const [first, second] = pair(story);
    const [one, two] = [story.handOut(first, 20), story.handOut(second, 20)];
    story.settle(one, 'ack', 30);
    story.settle(two, 'nack', 40);
    story.settle(story.handOut(second, 50, { receiveCount: 2 }), 'ack', 60);
    const verdict = story.judge();
    expect(faults(verdict)).toEqual({});
    expect(verdict.guarantees.find(({ guarantee }) => guarantee === ORDERED)?.checked).toBe(3);
  });

  it('is caught handing out the second while the first is delayed, leased or comes behind it', () => {
    const delayed = new Story();
    const [first, second] = pair(delayed);
    delayed.settle(delayed.handOut(first, 20), 'nack', 30, 'confirmed', 1);
    delayed.settle(delayed.handOut(second, 50), 'ack', 60);
    delayed.settle(delayed.handOut(first, 1060, { receiveCount: 2 }), 'ack', 1070);
    expect(faults(delayed.judge())).toHaveProperty([ORDERED], expect.stringContaining('came before message'));

    const leased = new Story();
    const [held, overtaking] = pair(leased);
    const lease = leased.handOut(held, 20);
    leased.settle(leased.handOut(overtaking, 50, { consumer: 1 }), 'ack', 60);
    leased.settle(lease, 'ack', 70);
    expect(faults(leased.judge())).toHaveProperty([ORDERED]);

    const reversed = new Story();
    const [one, two] = pair(reversed);
    for (const number of [two, one]) reversed.settle(reversed.handOut(number, 20), 'ack', 30);
    expect(faults(reversed.judge())).toHaveProperty([ORDERED]);
  });
});

describe('the verdict on a fault', () => {
  it('has the histories of the first messages, and counts all of them', () => {
    const story = new Story();
    for (let message = 0; message < 10; message++) story.handOut(story.enqueue(), 20);
    const lost = story.judge().guarantees.find(({ guarantee }) => guarantee === LOST);
    expect(lost).toMatchObject({ checked: 10, broken: 10, status: 'BROKEN' });
    expect(lost?.examples).toHaveLength(3);
    expect(lost?.examples[0]?.history).toEqual([
      expect.stringMatching(/^message [0-9a-f-]{36}, number 1, queue 1$/),
      'enqueue: sent +0.000 s, confirmed +0.005 s, expiresAt 00:00:00.002Z',
      'lease 1 (receiveCount 1) to consumer 1: asked +0.018 s, received +0.022 s; database: 00:00:00.020Z to 00:00:03.020Z',
    ]);
  });
});
