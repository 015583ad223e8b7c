import { indexInPack, newPackId, PACK_MESSAGES, packIdOf } from '@rowmq/contract';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { common, countMembers, firstMembers, has, union } from './members.js';
import { contentBytes, decodePack, PACK_BYTES } from './pack.codec.js';
import { type NewFate, type NewPack, packMessages, type Packable } from './packing.js';

const fate: fc.Arbitrary<NewFate> = fc.record({
  priorityRank: fc.constantFrom(5, 5, 0, 9),
  delayMs: fc.constantFrom(0, 0, 1000, 86_400_000, 86_400_001, 31_622_400_000),
  availableAt: fc.constantFrom(null, null, null, 1_900_000_000_000),
  lifeMs: fc.constantFrom(60_000, 60_000, 5000),
  producerLifeMs: fc.constantFrom(null, null, 60_000, 5000),
  leaseMs: fc.constantFrom(null, null, 30_000, 1000),
});
/** Sizes from nothing to larger than a pack, and those at its edge. */
const size = fc.oneof(
  { weight: 20, arbitrary: fc.integer({ min: 0, max: 300 }) },
  { weight: 2, arbitrary: fc.integer({ min: 300, max: PACK_BYTES }) },
  { weight: 1, arbitrary: fc.integer({ min: PACK_BYTES - 6, max: PACK_BYTES + 6 }) },
  { weight: 1, arbitrary: fc.constant(3 * PACK_BYTES) },
);
const message = fc
  .record({ fate, size, headers: fc.constantFrom(null, null, '{"a":"b"}') })
  .map(({ fate: of, size: length, headers }): Packable => {
    return { ...of, body: Buffer.alloc(length, length), headers: headers === null ? null : Buffer.from(headers) };
  });
/** Often more messages of one fate than a pack holds. */
const messages = fc.oneof(
  fc.array(message, { maxLength: 120 }),
  fc
    .tuple(fate, fc.array(message, { minLength: 30, maxLength: 120 }))
    .map(([of, all]) => all.map((one) => ({ ...one, ...of }))),
);

const SAME_FATE: NewFate = {
  priorityRank: 5,
  delayMs: 0,
  availableAt: null,
  lifeMs: 1,
  producerLifeMs: null,
  leaseMs: null,
};

interface Stored {
  pack: NewPack;
  index: number;
}

/** Packs clones, whose ids they become, and finds each message's place by its id. */
function pack(all: readonly Packable[]): { made: Packable[]; packs: NewPack[]; places: Stored[] } {
  const made = all.map((one) => ({ ...one }));
  const packs = packMessages(made);
  const places = made.map(({ id }) => {
    const packId = packIdOf(id as Buffer);
    const found = packs.filter((one) => one.id.equals(packId));
    if (found.length !== 1)
      throw new Error(`the pack of message ${id?.toString('hex')} was made ${found.length} times`);
    return { pack: found[0] as NewPack, index: indexInPack(id as Buffer) };
  });
  return { made, packs, places };
}

test('every message is in exactly one pack, at its own place, with its own content', () => {
  fc.assert(
    fc.property(messages, (all) => {
      const { packs, places } = pack(all);
      expect(new Set(places.map(({ pack: { id }, index }) => `${id.toString('hex')} ${index}`)).size).toBe(all.length);
      expect(packs.reduce((sum, { count }) => sum + count, 0)).toBe(all.length);
      const contents = new Map(packs.map((one) => [one, decodePack(one.payload, one.count)]));
      for (const [at, { pack: of, index }] of places.entries()) {
        const { body, headers } = all[at] as Packable;
        const stored = contents.get(of)?.[index];
        const isSame = stored?.body.equals(body) === true && String(stored.headers) === String(headers);
        if (!isSame) throw new Error(`message ${at} has another content`);
      }
    }),
  );
});

test('each message of a pack is owed by exactly one of its deliveries, and that one has its fate', () => {
  fc.assert(
    fc.property(messages, (all) => {
      const { made, packs, places } = pack(all);
      for (const { deliveries, count } of packs) {
        let owed = 0;
        for (const { members } of deliveries) {
          expect(members).not.toBe(0);
          expect(common(owed, members)).toBe(0);
          owed = union(owed, members);
        }
        expect(owed).toBe(firstMembers(count));
      }
      for (const [at, { pack: of, index }] of places.entries()) {
        const owing = of.deliveries.find(({ members }) => has(members, index));
        if (fateOf(owing?.fate) !== fateOf(made[at])) throw new Error(`message ${at} is owed with another fate`);
      }
    }),
  );
});

test('a pack keeps as many deliveries as its messages have fates, and lives as long as the last of them', () => {
  fc.assert(
    fc.property(messages, (all) => {
      const { packs, places } = pack(all);
      for (const one of packs) {
        const own = all.filter((_, at) => places[at]?.pack === one);
        expect(one.deliveries).toHaveLength(new Set(own.map((of) => fateOf(of))).size);
        expect(one.lifeMs).toBe(Math.max(...own.map(({ lifeMs }) => lifeMs)));
      }
    }),
  );
});

test('ids ascend with the order of messages that share a fate', () => {
  fc.assert(
    fc.property(messages, (all) => {
      const { made } = pack(all);
      const last = new Map<string, Buffer>();
      for (const one of made) {
        const key = fateOf(one);
        const before = last.get(key);
        if (before !== undefined && before.compare(one.id as Buffer) >= 0) throw new Error('ids do not ascend');
        last.set(key, one.id as Buffer);
      }
    }),
  );
});

test('a pack holds at most 32 messages and PACK_BYTES, unless it is one large message', () => {
  fc.assert(
    fc.property(messages, (all) => {
      for (const { count, payload } of pack(all).packs) {
        expect(count).toBeGreaterThan(0);
        expect(count).toBeLessThanOrEqual(PACK_MESSAGES);
        if (count > 1) expect(payload.length).toBeLessThanOrEqual(PACK_BYTES);
      }
    }),
  );
});

/** The time from which one of the pack's messages is available at the latest. */
function lastOf({ deliveries }: NewPack): number {
  return Math.max(...deliveries.map(({ fate: of }) => of.delayMs));
}

test('a pack keeps no message for more than twice the time until that is available, beyond 12 hours', () => {
  fc.assert(
    fc.property(messages, (all) => {
      for (const one of pack(all).packs) {
        const first = Math.min(...one.deliveries.map(({ fate: of }) => of.delayMs));
        expect(lastOf(one)).toBeLessThanOrEqual(Math.max(43_200_000, 2 * first));
      }
    }),
  );
});

test('a pack is closed only when the next message does not fit, or is available much later', () => {
  fc.assert(
    fc.property(messages, (all) => {
      const { packs } = pack(all);
      for (const [at, { payload: next, count: nextCount }] of packs.entries()) {
        if (at === 0) continue;
        const { payload, count } = packs[at - 1] as NewPack;
        const [first] = decodePack(next, nextCount);
        const wouldBe = payload.length + contentBytes(first!);
        const isLater = lastOf(packs[at] as NewPack) > Math.max(43_200_000, lastOf(packs[at - 1] as NewPack));
        expect(count === PACK_MESSAGES || wouldBe > PACK_BYTES || isLater).toBe(true);
      }
    }),
  );
});

test('two messages of exactly PACK_BYTES together are one pack, and with a byte more they are two', () => {
  const half = (bytes: number): Packable => ({ ...SAME_FATE, body: Buffer.alloc(bytes), headers: null });
  const [first] = pack([half(4000)]).packs as [NewPack];
  const rest = PACK_BYTES - first.payload.length;
  const second = half(rest - (contentBytes(half(rest)) - rest));
  expect(pack([half(4000), second]).packs.map(({ payload }) => payload.length)).toEqual([PACK_BYTES]);
  expect(pack([half(4000), half(second.body.length + 1)]).packs).toHaveLength(2);
});

test('messages that share a fate are together, so few deliveries arise', () => {
  const all = Array.from({ length: 64 }, (_, at): Packable => {
    return { ...SAME_FATE, priorityRank: at % 2, body: Buffer.alloc(10), headers: null };
  });
  const { packs } = pack(all);
  expect(packs.map(({ deliveries }) => deliveries.map(({ members }) => countMembers(members)))).toEqual([[32], [32]]);
});

test('packs get the ids that the caller makes', () => {
  const made: Buffer[] = [];
  const packs = packMessages(fc.sample(message, { numRuns: 70, seed: 1 }), () => {
    made.push(newPackId(1_700_000_000_000));
    return made.at(-1) as Buffer;
  });
  expect(packs.map(({ id }) => id)).toEqual(made);
});

function fateOf(one: NewFate | undefined): string {
  return JSON.stringify([
    one?.priorityRank,
    one?.delayMs,
    one?.availableAt,
    one?.lifeMs,
    one?.producerLifeMs,
    one?.leaseMs,
  ]);
}
