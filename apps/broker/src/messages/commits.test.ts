import type { EnqueueOutcome, EnqueueRequest, MessageRepository, NewMessage, Queue, Reservation } from '@rowmq/store';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { Metrics } from '../metrics/metrics.js';
import { Commits } from './commits.js';
import type { WaitingConsumers } from './waiting-consumers.js';

const CONFIG = { poolSize: 16, batchRequests: 1000, maxWaitingRequests: 100 };

const queue = (name: string): Queue => ({ id: 1, name, leaseSeconds: 30, paused: false }) as Queue;
const messages = (count: number, delaySeconds?: number): NewMessage[] =>
  Array.from({ length: count }, () => ({ body: Buffer.from('x'), headers: null, priority: 4, delaySeconds }));
/** A reserved consumer that wants this many messages. */
const wants = (maxMessages: number): Reservation => ({
  maxMessages,
  leaseSeconds: 30,
  handOff: () => undefined,
  cancel: () => undefined,
});
const ids = ({ messages: sent }: EnqueueRequest): Buffer[] => sent.map(() => Buffer.alloc(16));

type Enqueue = MessageRepository['enqueue'];
const enqueue = vi.fn<Enqueue>();
const reserve = vi.fn<WaitingConsumers['reserve']>();
const wake = vi.fn<WaitingConsumers['wake']>();
let commits: Commits;

beforeEach(() => {
  vi.resetAllMocks();
  reserve.mockReturnValue([]);
  commits = new Commits(
    { enqueue } as unknown as MessageRepository,
    { reserve, wake } as unknown as WaitingConsumers,
    new Metrics(),
    CONFIG,
  );
});

/** A store that offers so many messages of each queue to consumers, and then stores the batch. */
function storing(
  available: Record<string, number[]>,
  outcome: (request: EnqueueRequest) => EnqueueOutcome = ids,
): void {
  enqueue.mockImplementation(async (requests, options) => {
    for (const [name, tries] of Object.entries(available)) {
      for (const count of tries) options?.reserve?.(queue(name), count);
    }
    return requests.map(outcome);
  });
}

describe('an enqueue', () => {
  test('wakes nobody if the reserved consumers want all its messages', async () => {
    storing({ q: [3] });
    reserve.mockReturnValue([wants(1), wants(5)]);
    await commits.enqueue({ queueName: 'q', messages: messages(3) });
    expect(reserve).toHaveBeenCalledExactlyOnceWith(queue('q'), 3);
    expect(wake).not.toHaveBeenCalled();
  });

  test('wakes consumers for the messages that the reserved ones leave, once a queue', async () => {
    storing({ a: [3], b: [2] });
    reserve.mockImplementation(({ name }) => (name === 'a' ? [wants(1)] : []));
    await Promise.all(
      ['a', 'b', 'a'].map((queueName) => commits.enqueue({ queueName, messages: messages(queueName === 'a' ? 1 : 2) })),
    );
    expect(wake.mock.calls).toEqual([
      ['a', 2],
      ['b', 2],
    ]);
  });

  test('wakes nobody before its batch is stored, and nobody if all its requests are refused', async () => {
    storing({ q: [1] }, () => new Error('full'));
    await expect(commits.enqueue({ queueName: 'q', messages: messages(1) })).rejects.toThrow('full');
    enqueue.mockRejectedValue(new Error('lost'));
    await expect(commits.enqueue({ queueName: 'q', messages: messages(1) })).rejects.toThrow('lost');
    expect(wake).not.toHaveBeenCalled();
  });

  test('that was tried again expects at least the messages that are left', async () => {
    storing({ q: [5, 5] });
    reserve.mockReturnValueOnce([wants(5)]).mockReturnValueOnce([wants(1)]);
    await commits.enqueue({ queueName: 'q', messages: messages(5) });
    expect(wake).toHaveBeenCalledExactlyOnceWith('q', 4);
  });

  test('into a paused queue, which reserves nobody, makes its available messages known', async () => {
    storing({});
    const available = [...messages(2), ...messages(3, 60)];
    await commits.enqueue({ queueName: 'q', messages: available });
    expect(wake).toHaveBeenCalledExactlyOnceWith('q', 2);
    await commits.enqueue({ queueName: 'later', messages: messages(2, 60) });
    expect(wake).toHaveBeenCalledOnce();
  });
});
