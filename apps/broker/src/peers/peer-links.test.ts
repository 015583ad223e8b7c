import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import type { Peer } from '@rowmq/store';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Metrics } from '../metrics/metrics.js';
import { HintCounts } from './hint-counts.js';
import { HintListener } from './hint-listener.js';
import { HINT_PATH, type Hint } from './hint.js';
import { PeerLinks } from './peer-links.js';

/** A broker without a database. Its hints go over real sockets. */
class Neighbour {
  readonly metrics = new Metrics({ metricsQueues: 200 });
  readonly links: PeerLinks;
  readonly received: Hint[] = [];
  readonly listener: HintListener;
  peer!: Peer;

  constructor(private readonly id: string) {
    const counts = new HintCounts(this.metrics);
    this.links = new PeerLinks(counts, this.metrics);
    this.listener = new HintListener((hint) => {
      this.received.push(hint);
      for (const { queue } of hint.ready) this.links.hintedBy(hint.from, queue);
      this.links.parkedAt(hint.from, hint.parked);
    }, counts);
  }

  async start(): Promise<void> {
    const url = await this.listener.listen('127.0.0.1', 0);
    this.peer = { id: this.id, url, token: this.listener.token };
  }

  /** Hints that it got, as `queue: messages`. */
  get hints(): string[] {
    return this.received.flatMap(({ ready }) => ready.map(({ queue, messages }) => `${queue}: ${messages}`));
  }

  async count(event: string): Promise<number> {
    const text = await this.metrics.text();
    return Number(new RegExp(`^rowmq_hints_total\\{event="${event}"\\} (\\d+)$`, 'm').exec(text)?.[1]);
  }
}

let here: Neighbour;
let one: Neighbour;
let two: Neighbour;

// A clock that goes on by 20 ms in each turn that Node gives a real timer of 20 ms. While a busy
// machine stops the process it stands still, and no hint misses its deadline.
beforeEach(async () => {
  vi.useFakeTimers({ shouldAdvanceTime: true, toFake: ['setTimeout', 'clearTimeout'] });
  vi.spyOn(AbortSignal, 'timeout').mockImplementation((ms) => {
    const late = new AbortController();
    setTimeout(() => late.abort(), ms);
    return late.signal;
  });
  [here, one, two] = ['here', 'one', 'two'].map((id) => new Neighbour(id)) as [Neighbour, Neighbour, Neighbour];
  const all = [here, one, two];
  await Promise.all(all.map((neighbour) => neighbour.start()));
  for (const self of all) {
    const others = all.filter((other) => other !== self).map(({ peer }) => peer);
    self.links.update(self.peer, others, []);
  }
  for (const self of all) await vi.waitFor(() => expect(self.received).toHaveLength(2));
  for (const self of all) self.received.length = 0;
});
afterEach(async () => {
  vi.restoreAllMocks();
  vi.useRealTimers();
  for (const { links, listener } of [here, one, two]) {
    links.onApplicationShutdown();
    await listener.close();
  }
});

/** Consumers are parked at a neighbour, and everybody knows. */
async function parkAt(neighbour: Neighbour, queue: string): Promise<void> {
  const others = [here, one, two].filter((other) => other !== neighbour);
  const before = others.map(({ received }) => received.length);
  neighbour.links.parked(queue);
  for (const [index, { received }] of others.entries())
    await vi.waitFor(() => expect(received.length).toBeGreaterThan(before[index] as number));
}

test('one message wakes one broker, and the next message another', async () => {
  await parkAt(one, 'q');
  await parkAt(two, 'q');
  here.links.wake('q', 1);
  await vi.waitFor(() => expect(one.hints.length + two.hints.length).toBe(1));
  here.links.wake('q', 1);
  await vi.waitFor(() => expect([one.hints, two.hints]).toEqual([['q: 1'], ['q: 1']]));
});

test('a message that came just before consumers were parked wakes them, and only once', async () => {
  // However slow this machine is, the message is remembered.
  vi.spyOn(performance, 'now').mockReturnValue(performance.now());
  here.links.wake('q', 2);
  here.links.wake('q', 1);
  await parkAt(one, 'q');
  await vi.waitFor(() => expect(one.hints).toEqual(['q: 3']));
  await parkAt(two, 'q');
  await parkAt(one, 'other');
  here.links.wake('other', 1);
  await vi.waitFor(() => expect(one.hints).toEqual(['q: 3', 'other: 1']));
  expect(two.hints).toEqual([]);
});

test('a hint for a broker that is gone wakes the next one', async () => {
  await parkAt(one, 'q');
  await parkAt(two, 'q');
  await one.listener.close();
  here.links.wake('q', 1);
  await vi.waitFor(() => expect(two.hints).toEqual(['q: 1']));
  expect(await here.count('failed')).toBe(1);
});

test('a peer that does not answer holds up neither the caller nor the hints to others, and its own are passed on', async () => {
  const sockets: Socket[] = [];
  const silent = createServer((socket) => void sockets.push(socket)).listen(0, '127.0.0.1');
  await once(silent, 'listening');
  const url = `http://127.0.0.1:${(silent.address() as AddressInfo).port}`;
  const sender = new Neighbour('sender');
  try {
    sender.links.update({ id: 'sender' }, [{ id: 'silent', url, token: 'x' }, one.peer], []);
    sender.links.parkedAt('silent', ['q']);
    sender.links.parkedAt('one', ['q', 'r']);
    sender.links.wake('q', 1);
    sender.links.wake('r', 1);
    await vi.waitFor(() => expect(one.hints).toEqual(['r: 1']));
    expect(await sender.count('failed')).toBe(0);
    await vi.waitFor(() => expect(one.hints).toEqual(['r: 1', 'q: 1']));
    expect(await sender.count('failed')).toBe(1);
  } finally {
    sender.links.onApplicationShutdown();
    for (const socket of sockets) socket.destroy();
    silent.close();
  }
});

test('a message of eight brokers costs one hint, and the announcement of its consumer goes to its sender only', async () => {
  const many = Array.from({ length: 8 }, (_, index) => new Neighbour(`many ${index}`));
  try {
    await Promise.all(many.map((neighbour) => neighbour.start()));
    for (const self of many) {
      const others = many.filter((other) => other !== self).map(({ peer }) => peer);
      self.links.update(self.peer, others, []);
    }
    const [producer, ...others] = many as [Neighbour, ...Neighbour[]];
    const announced = () => many.flatMap(({ received }) => received.flatMap(({ parked }) => parked));
    for (const { links } of others) links.parked('q');
    await vi.waitFor(() => expect(announced()).toHaveLength(7 * 7));
    // Consumers that come and go cost nothing.
    for (const { links } of others) links.parked('q');
    producer.links.wake('q', 1);
    await vi.waitFor(() => expect(others.flatMap(({ hints }) => hints)).toEqual(['q: 1']));
    const served = others.find(({ hints }) => hints.length > 0) as Neighbour;
    served.links.parked('q');
    // Names arrive in order, so nothing else is on its way behind this one.
    for (const { links } of others) links.parked('last');
    await vi.waitFor(() => expect(announced().filter((name) => name === 'last')).toHaveLength(7 * 7));
    expect(announced().filter((name) => name === 'q')).toHaveLength(7 * 7 + 1);
    expect(producer.received.flatMap(({ parked }) => parked).filter((name) => name === 'q')).toHaveLength(8);
    expect(others.flatMap(({ hints }) => hints)).toEqual(['q: 1']);
  } finally {
    for (const { links } of many) links.onApplicationShutdown();
    await Promise.all(many.map(({ listener }) => listener.close()));
  }
});

test.each([
  ['no token', undefined, 401],
  ['the token of another broker', 'two', 401],
  ['its own token', 'one', 204],
])('a broker answers a hint with %s', async (_, whose, status) => {
  const token = [one, two].find(({ peer }) => peer.id === whose)?.peer.token;
  const answer = await fetch(`${one.peer.url}${HINT_PATH}`, {
    method: 'POST',
    headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
    body: JSON.stringify({ from: 'here', ready: [{ queue: 'q', messages: 1 }], parked: [] }),
  });
  expect(answer.status).toBe(status);
  expect(one.hints).toEqual(status === 204 ? ['q: 1'] : []);
  expect(await one.count('refused')).toBe(status === 401 ? 1 : 0);
});

test.each([
  ['no JSON', '{', 400],
  ['no queue name', JSON.stringify({ from: 'here', ready: [{ queue: 'no name' }], parked: [] }), 400],
  ['no number', JSON.stringify({ from: 'here', ready: [{ queue: 'q', messages: -1 }], parked: [] }), 400],
  ['too many names', JSON.stringify({ from: 'here', ready: [], parked: Array.from({ length: 1001 }, () => 'q') }), 400],
])('a broker refuses a hint that is wrong: %s', async (_, body, status) => {
  const answer = await fetch(`${one.peer.url}${HINT_PATH}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${one.peer.token}` },
    body,
  });
  expect(answer.status).toBe(status);
  expect(one.received).toEqual([]);
});

test('a broker does not read on in a hint that is too large', async () => {
  const sent = fetch(`${one.peer.url}${HINT_PATH}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${one.peer.token}` },
    body: ' '.repeat(10_000_000),
  }).then(
    ({ status }) => status,
    () => 'hung up',
  );
  expect(await sent).toBeOneOf([413, 'hung up']);
  expect(one.received).toEqual([]);
});

test('a broker cannot listen for hints at an address of another machine, and says what to set', async () => {
  await expect(new Neighbour('x').listener.listen('192.0.2.1', 0)).rejects.toThrow(
    /Cannot listen for the hints .*Set ROWMQ_PEER_HOST to an address of this machine/,
  );
});
