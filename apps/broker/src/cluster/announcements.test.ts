import { setImmediate as turn } from 'node:timers/promises';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { Announcements } from './announcements.js';

let sent: { queues: string[]; arrived: () => void }[];
let announcements: Announcements;

beforeEach(() => {
  sent = [];
  announcements = new Announcements((queues, arrived) => sent.push({ queues, arrived }));
});

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

  test('gather while a message is on its way, and a moment longer', async () => {
    add('a');
    await turn();
    add('b');
    await turn();
    add('c');
    await turn();
    expect(sent).toHaveLength(1);
    sent[0]!.arrived();
    add('d');
    await turn();
    expect(sent).toHaveLength(1);
    await vi.waitFor(() => expect(sent).toHaveLength(2));
    expect(sent[1]!.queues).toEqual(['b', 'c', 'd']);
  });

  test('go out at once again after a rest', async () => {
    add('a');
    await turn();
    sent[0]!.arrived();
    await vi.waitFor(async () => {
      add('b');
      await turn();
      expect(sent).toHaveLength(2);
    });
  });

  test('are bounded while a message never arrives', async () => {
    add('a');
    await turn();
    add(...Array.from({ length: 5000 }, (_, index) => `queue-${index}`));
    sent[0]!.arrived();
    await vi.waitFor(() => expect(sent).toHaveLength(2));
    expect(sent[1]!.queues).toHaveLength(1000);
  });
});
