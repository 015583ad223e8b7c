import { setImmediate as turn } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { MOST_QUEUES } from './hint.js';
import { PeerLink, type SendHint } from './peer-link.js';

interface Sent {
  hint: Parameters<SendHint>[0];
  taken: () => void;
  fail: () => void;
}

let sent: Sent[];
let lost: [string, number][];
let link: PeerLink;

// The clock stands still unless a test moves it. `turn` is real.
beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  sent = [];
  lost = [];
  link = new PeerLink(
    async (hint) =>
      new Promise((resolve, reject) => {
        sent.push({ hint, taken: resolve, fail: () => reject(new Error('gone')) });
      }),
    (ready) => lost.push(...ready),
  );
});
afterEach(() => void vi.useRealTimers());

/** Lets the peer take the last hint, and waits for the pause after it. */
async function take(): Promise<void> {
  sent.at(-1)!.taken();
  await turn();
  await vi.advanceTimersByTimeAsync(10);
}

function parkThere(...queues: string[]): void {
  for (const queue of queues) link.isParkedThere(queue);
}

describe('a hint to a peer', () => {
  test('goes out only for a queue whose consumers are parked there, and once until they are parked again', async () => {
    expect(link.wake('q', 1)).toBe(false);
    parkThere('q');
    expect(link.wake('q', 1)).toBe(true);
    expect(link.wake('q', 1)).toBe(false);
    await turn();
    expect(sent.map(({ hint }) => hint)).toEqual([{ ready: [{ queue: 'q', messages: 1 }], parked: [] }]);
    await take();
    parkThere('q');
    expect(link.wake('q', Infinity)).toBe(true);
    await turn();
    expect(sent.at(-1)?.hint).toEqual({ ready: [{ queue: 'q' }], parked: [] });
  });

  test('shares one request with all names of one turn of the event loop', async () => {
    parkThere('a', 'b');
    link.wake('a', 2);
    link.announce('c');
    link.wake('b', 1);
    link.announce('c');
    await turn();
    expect(sent.map(({ hint }) => hint)).toEqual([
      {
        ready: [
          { queue: 'a', messages: 2 },
          { queue: 'b', messages: 1 },
        ],
        parked: ['c'],
      },
    ]);
  });

  test('waits while another is on its way, and adds up the messages of a queue', async () => {
    link.announce('a');
    await turn();
    for (const messages of [1, 2]) {
      parkThere('q');
      link.wake('q', messages);
      await turn();
    }
    expect(sent).toHaveLength(1);
    await take();
    expect(sent).toHaveLength(2);
    expect(sent[1]?.hint).toEqual({ ready: [{ queue: 'q', messages: 3 }], parked: [] });
  });

  test('names a bounded number of queues, however many wait', async () => {
    link.announce('first');
    await turn();
    for (let index = 0; index < 2 * MOST_QUEUES; index += 1) {
      parkThere(`q${index}`);
      link.wake(`q${index}`, 1);
      link.announce(`q${index}`);
    }
    await take();
    expect(sent[1]?.hint.ready).toHaveLength(MOST_QUEUES);
    expect(sent[1]?.hint.parked).toHaveLength(MOST_QUEUES - 1);
  });
});

describe('parked consumers', () => {
  test('are announced once, and again after a hint of the peer for their queue', async () => {
    link.announce('q');
    await turn();
    await take();
    link.announce('q');
    await turn();
    expect(sent).toHaveLength(1);
    link.isHinted('q');
    link.announce('q');
    await turn();
    expect(sent).toHaveLength(2);
  });

  test('are all announced again when the link is renewed', async () => {
    link.announce('gone');
    await turn();
    await take();
    link.renew(['a', 'b']);
    await turn();
    expect(sent.at(-1)?.hint.parked).toEqual(['a', 'b']);
  });
});

describe('a hint that the peer does not take', () => {
  test('gives its messages back, also those that waited behind it', async () => {
    parkThere('a', 'b');
    link.wake('a', 1);
    await turn();
    link.wake('b', 2);
    sent[0]!.fail();
    await turn();
    expect(lost).toEqual([
      ['a', 1],
      ['b', 2],
    ]);
  });

  test('is the last one until the link is renewed or the peer is heard of again', async () => {
    parkThere('a', 'b');
    link.wake('a', 1);
    await turn();
    sent[0]!.fail();
    await turn();
    expect(link.wake('b', 1)).toBe(false);
    link.announce('c');
    await turn();
    await vi.advanceTimersByTimeAsync(1000);
    expect(sent).toHaveLength(1);
    parkThere('b');
    expect(link.wake('b', 1)).toBe(true);
    await turn();
    await take();
    link.renew(['c']);
    await turn();
    expect(sent.map(({ hint }) => hint).slice(1)).toEqual([
      { ready: [{ queue: 'b', messages: 1 }], parked: [] },
      { ready: [], parked: ['c'] },
    ]);
  });
});
