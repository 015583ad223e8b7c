import { randomUUID } from 'node:crypto';
import { type Peer, PEER_SILENCE_MS, PeerRepository } from '@rowmq/store';
import { beforeEach, describe, expect, test } from 'vitest';
import { START } from '../support/partitions.js';
import { openStore, type TestStore } from '../support/store.js';

let store: TestStore;
let number = 0;

beforeEach(async () => {
  store = await openStore();
  return () => store.close();
});

function newPeer(): Peer {
  number += 1;
  return { id: randomUUID(), url: `http://broker-${number}:1`, token: 't'.repeat(43) };
}

/** Sends a broker's heartbeat at this time of the database's clock. Returns the others' URLs. */
async function heartbeat(self: Peer, at: number): Promise<string[]> {
  const live = await new PeerRepository(store.at(at).database).heartbeat(self);
  return live.map(({ url }) => url).toSorted();
}

async function registered(): Promise<string[]> {
  const rows = await store.database.read<{ url: string }>('SELECT url FROM broker');
  return rows.map(({ url }) => url).toSorted();
}

describe('the brokers of a database', () => {
  test('find each other, with the secret that each of them expects', async () => {
    const [one, two] = [newPeer(), newPeer()];
    expect(await heartbeat(one, START)).toEqual([]);
    expect(await heartbeat(two, START)).toEqual([one.url]);
    expect(await new PeerRepository(store.at(START).database).heartbeat(one)).toEqual([two]);
  });

  test('are live until they have been silent for ten seconds, to the millisecond', async () => {
    const [one, two] = [newPeer(), newPeer()];
    await heartbeat(one, START);
    expect(await heartbeat(two, START + PEER_SILENCE_MS - 1)).toEqual([one.url]);
    expect(await heartbeat(two, START + PEER_SILENCE_MS)).toEqual([]);
  });

  test('remove those that are gone, and a removed one that comes back registers again', async () => {
    const [one, two, three] = [newPeer(), newPeer(), newPeer()];
    await heartbeat(one, START);
    await heartbeat(two, START + 5000);
    await heartbeat(three, START + PEER_SILENCE_MS);
    expect(await registered()).toEqual([two.url, three.url].toSorted());
    expect(await heartbeat(one, START + PEER_SILENCE_MS + 1)).toEqual([two.url, three.url].toSorted());
    expect(await registered()).toHaveLength(3);
  });

  test('forget a predecessor at the same address at once, because its secret has changed', async () => {
    const [before, other] = [newPeer(), newPeer()];
    const after = { ...newPeer(), url: before.url, token: 'u'.repeat(43) };
    await heartbeat(before, START);
    await heartbeat(other, START);
    expect(await heartbeat(after, START)).toEqual([other.url]);
    expect(await new PeerRepository(store.at(START).database).heartbeat(other)).toEqual([after]);
  });

  test('are forgotten when they stop', async () => {
    const [one, two] = [newPeer(), newPeer()];
    await heartbeat(one, START);
    await heartbeat(two, START);
    await new PeerRepository(store.database).forget(one.id);
    expect(await registered()).toEqual([two.url]);
  });

  test('remove a hundred that are gone at a time', async () => {
    const gone = Array.from({ length: 120 }, newPeer);
    await store.database.write('INSERT INTO broker (id, url, token, heartbeat_at) VALUES ?', [
      gone.map(({ id, url, token }) => [id, url, token, START]),
    ]);
    const self = newPeer();
    expect(await heartbeat(self, START + PEER_SILENCE_MS)).toEqual([]);
    expect(await registered()).toHaveLength(21);
    await heartbeat(self, START + PEER_SILENCE_MS);
    expect(await registered()).toEqual([self.url]);
  });

  test('send heartbeats at the same time without an error', async () => {
    const peers = Array.from({ length: 8 }, newPeer);
    for (let round = 0; round < 20; round += 1) {
      const at = START + round * (PEER_SILENCE_MS + 1);
      await Promise.all(peers.map((peer) => heartbeat(peer, at)));
    }
    expect(await heartbeat(peers[0] as Peer, START + 20 * PEER_SILENCE_MS)).toHaveLength(7);
  });
});
