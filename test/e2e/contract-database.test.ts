import { createConnection, type RowDataPacket } from 'mysql2/promise';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { type Answer, expectProblem, type QueueApi, useBroker } from '../support/api.js';
import { testServer } from '../support/servers.js';
import { eventually } from '../support/wait.js';

const shared = useBroker();
const LEASE_SECONDS = 3;
/** The fewest connections that are killed, and messages that are stored. */
const KILLED = 20;
const STORED = 50;
const SHORTEST_MS = 6000;
const LONGEST_MS = 60_000;

/**
 * Kills every connection of the broker on the server again and again until stopped. Returns the
 * number of kills.
 */
function killConnections(database: string): { killed: () => number; stop: () => Promise<number> } {
  let going = true;
  let killed = 0;
  const work = async (): Promise<number> => {
    const connection = await createConnection({ uri: testServer().url });
    while (going) {
      const [rows] = await connection.query<RowDataPacket[]>(
        'SELECT id FROM information_schema.processlist WHERE db = ?',
        [database],
      );
      for (const { id } of rows as { id: number }[]) {
        // The connection may have ended by itself meanwhile.
        await connection.query(`KILL ${id}`).then(
          () => (killed += 1),
          () => undefined,
        );
      }
      await sleep(150);
    }
    await connection.end();
    return killed;
  };
  const done = work();
  return {
    killed: () => killed,
    stop: async () => {
      going = false;
      return done;
    },
  };
}

/** Expects a success or a 503. */
function expectHonest(answer: Answer, status: number): boolean {
  if (answer.status === status) return true;
  expectProblem(answer, 503, 'database-unavailable');
  expect(answer.headers.get('retry-after')).toMatch(/^[1-9]\d*$/);
  return false;
}

describe('while all of a broker’s database connections are killed again and again', () => {
  test('every request succeeds or gets 503, and no message is doubled or lost', async () => {
    const queue: QueueApi = await shared.newQueue({ leaseSeconds: LEASE_SECONDS });
    const killer = killConnections(shared.broker.database.name);
    /** Bodies by the producer's answer. */
    const stored = new Map<string, string>();
    const refused = new Set<string>();
    /** Message ids by body, for every message that was handed out. */
    const received = new Map<string, Set<string>>();
    const acked = new Map<string, number>();
    const begun = performance.now();
    /** A slow machine gets longer, until everything has happened that the test expects. */
    const isOver = (): boolean => {
      const hasHappened = killer.killed() > KILLED && stored.size > STORED;
      return performance.now() > begun + (hasHappened ? SHORTEST_MS : LONGEST_MS);
    };
    let consuming = true;

    const producers = Array.from({ length: 4 }, async (_, producer) => {
      for (let batch = 0; !isOver(); batch += 1) {
        const bodies = Array.from({ length: 5 }, (_unused, index) => `${producer}.${batch}.${index}`);
        const answer = await queue.request<{ messages: { id: string }[] }>('enqueue', {
          messages: bodies.map((body) => ({ body })),
        });
        if (expectHonest(answer, 201))
          for (const [index, body] of bodies.entries()) stored.set(body, answer.json.messages[index]!.id);
        else for (const body of bodies) refused.add(body);
      }
    });
    const consumers = Array.from({ length: 4 }, async () => {
      while (consuming) {
        const taken = await queue.request<{ messages: { id: string; body: string; receipt: string }[] }>('dequeue', {
          maxMessages: 20,
          waitSeconds: 1,
        });
        if (!expectHonest(taken, 200)) continue;
        const ids = new Map(taken.json.messages.map(({ id, receipt }) => [receipt, id]));
        for (const { id, body } of taken.json.messages) {
          expect(acked.has(id), `${body} was handed out after its ack`).toBe(false);
          received.set(body, (received.get(body) ?? new Set()).add(id));
        }
        if (ids.size === 0) continue;
        const answer = await queue.request<{ acked: string[] }>('ack', { receipts: [...ids.keys()] });
        if (!expectHonest(answer, 200)) continue;
        for (const receipt of answer.json.acked) {
          const id = ids.get(receipt) as string;
          acked.set(id, (acked.get(id) ?? 0) + 1);
        }
      }
    });

    await Promise.all(producers);
    const killed = await killer.stop();
    await eventually(
      'everything is settled',
      async () => {
        for (const state of ['ready', 'delayed', 'leased'] as const)
          if ((await queue.browse(state)).length > 0) return false;
        return true;
      },
      60_000,
    );
    consuming = false;
    await Promise.all(consumers);

    console.log(`${killed} connections killed, ${stored.size} messages stored, ${refused.size} refused`);
    expect(killed).toBeGreaterThan(KILLED);
    expect(stored.size).toBeGreaterThan(STORED);
    expect([...stored.keys()].filter((body) => !received.has(body))).toEqual([]);
    expect([...received].filter(([, ids]) => ids.size > 1).map(([body]) => body)).toEqual([]);
    for (const [body, id] of stored) expect([...(received.get(body) ?? [])]).toEqual([id]);
    expect([...acked].filter(([, times]) => times > 1)).toEqual([]);
    for (const body of received.keys()) expect(stored.has(body) || refused.has(body), body).toBe(true);
  });
});
