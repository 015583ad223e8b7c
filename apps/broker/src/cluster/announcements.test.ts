import { setImmediate as turn } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { Announcements } from './announcements.js';

let sent: { queues: string[]; arrived: () => void }[];
let announcements: Announcements;

// The clock stands still unless a test moves it. `turn` is real.
beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  sent = [];
  announcements = new Announcements((queues, arrived) => sent.push({ queues, arrived }));
});
afterEach(() => void vi.useRealTimers());

const add = (...queues: string[]): void => {
  for (const queue of queues) announcements.add(queue);
};

describe('announcements', () => {
  test('made in one turn of the event loop are one message, each queue once', async () => {
    add('a', 'b', 'a');
    expect(sent).toEqual([]);
    await turn();
    expect(sent).toMatchObject([{ queues: ['a', 'b'] }]);
  });

  test('gather while a message is on its way, and for 5 ms more', async () => {
    add('a');
    await turn();
    add('b');
    await turn();
    add('c');
    await turn();
    expect(sent).toHaveLength(1);
    sent[0]!.arrived();
    add('d');
    vi.advanceTimersByTime(4);
    await turn();
    expect(sent).toHaveLength(1);
    vi.advanceTimersByTime(1);
    expect(sent).toHaveLength(2);
    expect(sent[1]!.queues).toEqual(['b', 'c', 'd']);
  });

  test('go out at once again after a rest', async () => {
    add('a');
    await turn();
    sent[0]!.arrived();
    vi.advanceTimersByTime(5);
    add('b');
    await turn();
    expect(sent).toMatchObject([{ queues: ['a'] }, { queues: ['b'] }]);
  });

  test('are bounded while a message never arrives', async () => {
    add('a');
    await turn();
    add(...Array.from({ length: 5000 }, (_, index) => `queue-${index}`));
    sent[0]!.arrived();
    vi.advanceTimersByTime(5);
    expect(sent).toHaveLength(2);
    expect(sent[1]!.queues).toHaveLength(1000);
  });
});
