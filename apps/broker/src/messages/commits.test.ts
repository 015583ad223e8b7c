import type {
  EnqueuedMessage,
  EnqueueOutcome,
  EnqueueRequest,
  LeasedMessage,
  MessageRepository,
  NewMessage,
  Queue,
  QueueRepository,
  Reservation,
} from '@rowmq/store';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { Metrics } from '../metrics/metrics.js';
import { noPressure } from './no-limits.test-support.js';
import { Commits } from './commits.js';
import type { WaitingConsumers } from './waiting-consumers.js';

const CONFIG = { poolSize: 16, batchRequests: 1000, maxWaitingRequests: 100 };

const queue = (name: string): Queue => ({ id: 1, name, leaseSeconds: 30, paused: false }) as Queue;
const messages = (count: number): NewMessage[] =>
  Array.from({ length: count }, () => ({ body: Buffer.from('x'), headers: null, priority: 4 }));
/** A reserved consumer that wants this many messages. */
const wants = (maxMessages: number): Reservation => ({
  maxMessages,
  leaseSeconds: 30,
  handOff: () => undefined,
  cancel: () => undefined,
});
const ids = ({ messages: sent }: EnqueueRequest): EnqueuedMessage[] =>
  sent.map(() => ({ id: Buffer.alloc(16), duplicate: false }));

type Enqueue = MessageRepository['enqueue'];
const enqueue = vi.fn<Enqueue>();
const reject = vi.fn<MessageRepository['reject']>();
const reserve = vi.fn<WaitingConsumers['reserve']>();
const wake = vi.fn<WaitingConsumers['wake']>();
let commits: Commits;

beforeEach(() => {
  vi.resetAllMocks();
  reserve.mockReturnValue([]);
  commits = new Commits(
    { enqueue, reject } as unknown as MessageRepository,
    {} as unknown as QueueRepository,
    { reserve, wake } as unknown as WaitingConsumers,
    new Metrics({ metricsQueues: 200 }),
    CONFIG,
    noPressure(),
  );
});

afterEach(() => void vi.useRealTimers());

/**
 * A store that offers messages of each queue to consumers: this many at each try. It hands off at
 * the last try.
 */
function storing(offers: Record<string, number[]>, outcome: (request: EnqueueRequest) => EnqueueOutcome = ids): void {
  enqueue.mockImplementation(async (requests, { reserve: take = () => [] } = {}) => {
    for (const [name, tries] of Object.entries(offers)) {
      for (const [index, count] of tries.entries()) {
        let left = count;
        for (const reservation of take(queue(name), count)) {
          const got = Math.min(left, reservation.maxMessages);
          if (index < tries.length - 1) reservation.cancel();
          else reservation.handOff(Array.from<LeasedMessage>({ length: got }));
          left -= got;
        }
      }
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

  test('that was tried again counts the messages of the last try only', async () => {
    storing({ q: [5, 5] });
    reserve.mockReturnValueOnce([wants(5)]).mockReturnValueOnce([wants(1)]);
    await commits.enqueue({ queueName: 'q', messages: messages(5) });
    expect(wake).toHaveBeenCalledExactlyOnceWith('q', 4);
  });

  test('wakes consumers for messages that are stored, though their reservation was cancelled', async () => {
    enqueue.mockImplementation(async (requests, options) => {
      for (const reservation of options?.reserve?.(queue('q'), 2) ?? []) reservation.cancel();
      return requests.map(ids);
    });
    reserve.mockReturnValue([wants(2)]);
    await commits.enqueue({ queueName: 'q', messages: messages(2) });
    expect(wake).toHaveBeenCalledExactlyOnceWith('q', 2);
  });

  test('wakes nobody for messages that no consumer may have yet', async () => {
    storing({});
    await commits.enqueue({ queueName: 'q', messages: messages(2) });
    expect(wake).not.toHaveBeenCalled();
  });

  test('gives each reserved consumer its messages and its lease length', async () => {
    const consumer = { ...wants(2), leaseSeconds: 7, handOff: vi.fn<Reservation['handOff']>() };
    reserve.mockReturnValue([consumer]);
    enqueue.mockImplementation(async (requests, options) => {
      const [offered] = options?.reserve?.(queue('q'), 2) ?? [];
      expect(offered).toMatchObject({ maxMessages: 2, leaseSeconds: 7 });
      offered?.handOff([{} as LeasedMessage]);
      return requests.map(ids);
    });
    await commits.enqueue({ queueName: 'q', messages: messages(2) });
    expect(consumer.handOff).toHaveBeenCalledExactlyOnceWith([{}]);
    expect(wake).toHaveBeenCalledExactlyOnceWith('q', 1);
  });
});

describe('rejects, each with a transaction of its own', () => {
  const request = { queueId: 1, receipts: [] };

  test('have their own outcomes', async () => {
    reject.mockResolvedValueOnce([null]).mockRejectedValueOnce(new Error('no dead-letter queue'));
    const [first, second] = [commits.reject(request), commits.reject(request)];
    expect(await first).toEqual([null]);
    await expect(second).rejects.toThrow('no dead-letter queue');
  });

  test('are refused as overload if those before them take ten seconds', async () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    let end = (): void => undefined;
    reject.mockReturnValueOnce(new Promise((resolve) => (end = () => resolve([null]))));
    const [first, ...others] = [1, 2, 3].map(async () => commits.reject(request));
    await vi.waitFor(() => expect(reject).toHaveBeenCalledOnce());
    vi.advanceTimersByTime(10_001);
    end();
    expect(await first).toEqual([null]);
    for (const refused of others) await expect(refused).rejects.toMatchObject({ code: 'overloaded' });
    expect(reject).toHaveBeenCalledOnce();
  });
});
