import { setTimeout as sleep } from 'node:timers/promises';
import { RowmqError, type PutQueueRequest } from '@rowmq/contract';
import { FIRST_ID, type LeasedMessage, type NewMessage, type Queue, type Reserve } from '@rowmq/store';
import { enqueue } from '../../../libs/typeorm/src/index.js';
import { message, type TestStore } from '../../support/store.js';
import { type Held, requestsFor } from './held-leases.js';
import { LAST_ID, oneOf, type Plan, planForQueue, type Scene, SETTINGS, someOf, type Statements } from './scene.js';

/** Producers pause while this many messages are owed. */
const MOST_OWED = 3000;
const LONGEST_DELAY_SECONDS = 1;
/** The share of leases whose consumers take longer than the lease. */
const SHARE_SLOW = 0.4;
const PURGED_AT_ONCE = 20;
/**
 * The share of requests whose messages all share one fate. The packs of the others share little.
 */
const SHARE_UNIFORM = 0.6;

/**
 * Other workers kept the queue's row locked, deleted and recreated it during every attempt to lock
 * it, or deleted it right after the change.
 */
const CHANGED_BY_OTHERS: RowmqError['code'][] = ['queue-locked', 'database-unavailable', 'queue-not-found'];

/** The statements that brokers send for producers, consumers and operators. */
export const BROKER_STATEMENTS = {
  enqueue: {
    weight: 3,
    // A queue changed in every round.
    refusals: ['overloaded'],
    plan: (scene, store) => planEnqueue(scene, store, false),
  },
  'enqueue, handed off': {
    weight: 2,
    refusals: ['overloaded'],
    plan: (scene, store) => planEnqueue(scene, store, true),
  },
  'enqueue, transactional': {
    weight: 2,
    // The queue just got a maximum depth, or the caller's transaction yielded to DDL.
    refusals: ['queue-not-found', 'queue-full', 'overloaded'],
    givesWay: true,
    plan: planTransactionalEnqueue,
  },
  dequeue: { weight: 8, plan: planDequeue },
  ack: {
    weight: 8,
    plan: (scene, store) => planAck(scene, store, scene.held.pickRunning(30)),
  },
  'ack, stale': {
    weight: 6,
    plan: (scene, store) => planAck(scene, store, scene.held.pickStale(30)),
  },
  nack: {
    weight: 4,
    plan: (scene, { messages }) =>
      planForHeld([...scene.held.pickRunning(8), ...scene.held.pickStale(4)], async (held) => {
        const requests = requestsFor(held).map((request) => ({
          ...request,
          delaySeconds: oneOf([0, 0, LONGEST_DELAY_SECONDS]),
        }));
        await messages.batches.nack(requests);
      }),
  },
  'nack, dead-letter': {
    weight: 2,
    // The queue has no dead-letter queue.
    refusals: ['invalid-request'],
    plan: (scene, { messages }) =>
      planForHeld([...scene.held.pickRunning(8), ...scene.held.pickStale(4)], async (held) => {
        for (const request of requestsFor(held)) await messages.batches.reject({ ...request, reason: 'stress' });
      }),
  },
  extend: {
    weight: 4,
    plan: (scene, { messages }) =>
      planForHeld([...scene.held.pickRunning(12), ...scene.held.pickStale(4)], async (held) => {
        const begun = performance.now();
        const requests = requestsFor(held).map((request) => ({ ...request, leaseSeconds: 1 }));
        const answers = await messages.batches.extend(requests);
        const extended = new Set(
          requests.flatMap(({ receipts }, index) =>
            receipts.filter((_, position) => answers[index]?.outcomes[position] === null),
          ),
        );
        const still = held.filter(({ lease }) => extended.has(lease));
        scene.held.add(still.map((one) => ({ ...one, until: begun + 1000, isSlow: Math.random() < SHARE_SLOW })));
      }),
  },
  release: {
    weight: 2,
    plan: (scene, { messages }) =>
      planForHeld([...scene.held.pickRunning(8), ...scene.held.pickStale(4)], async (held) => {
        await messages.batches.release(requestsFor(held));
      }),
  },
  redrive: {
    weight: 2,
    plan: (scene, store) =>
      planForQueue(scene, store, async ({ id }) => {
        const most = oneOf([5, 20, Infinity]);
        const { moved } = await store.unleased.redrive(id, FIRST_ID, 50, most);
        const count = [...moved.values()].reduce((sum, some) => sum + some, 0);
        if (count > most) scene.account.fault(`a redrive of at most ${most} messages moved ${count}`);
      }),
  },
  purge: {
    weight: 0.3,
    plan: (scene, store) =>
      planForQueue(scene, store, async ({ id }) => {
        const { purged } = await store.unleased.purge(id, FIRST_ID, LAST_ID, PURGED_AT_ONCE);
        scene.account.purged += purged;
      }),
  },
  'create queue': {
    weight: 1,
    refusals: CHANGED_BY_OTHERS,
    plan: (scene, { queues }) => (scene.isThere ? undefined : planPut(scene, queues, scene.passing, SETTINGS)),
  },
  'change queue': {
    weight: 0.5,
    refusals: CHANGED_BY_OTHERS,
    plan: (scene, { queues }) => {
      const name = scene.anyQueue();
      if (name === scene.passing && !scene.isThere) return undefined;
      return planPut(scene, queues, name, anySettings(scene, name));
    },
  },
  'pause queue': {
    weight: 0.3,
    refusals: ['queue-not-found', 'queue-locked'],
    plan: (scene, { queues }) => {
      const name = scene.anyQueue();
      return { queues: [name], carryOut: () => queues.setPaused(name, Math.random() < 0.5) };
    },
  },
  'delete queue': {
    weight: 0.2,
    // The queue is another's dead-letter queue, which shows only once its row is locked.
    refusals: ['invalid-request', 'queue-not-found', 'queue-locked'],
    plan: (scene, { queues }) => {
      const name = scene.anyQueue();
      return {
        queues: [name],
        carryOut: async () => {
          await queues.delete(name);
          scene.isThere = false;
        },
      };
    },
  },
  browse: {
    weight: 1,
    plan: (scene, store) =>
      planForQueue(scene, store, async ({ id }) => {
        if (Math.random() < 0.5) await store.browse.stats(id);
        else await store.browse.browse(id, oneOf(['ready', 'delayed', 'leased']), 100, undefined);
      }),
  },
} satisfies Record<string, Statements>;

function planEnqueue(scene: Scene, { messages: { batches } }: TestStore, isHandedOff: boolean): Plan | undefined {
  if (scene.account.owed > MOST_OWED) return undefined;
  const queues = someOf(scene.queues);
  return {
    queues,
    carryOut: async () => {
      const requests = queues.map((queueName) => ({ queueName, messages: someMessages(scene) }));
      const parked = new ParkedConsumers(scene);
      try {
        const outcomes = await batches.enqueue(requests, isHandedOff ? { reserve: parked.reserve } : {});
        for (const outcome of outcomes) {
          if (outcome instanceof Error) {
            if (!isRefusal(outcome)) throw outcome;
          } else {
            scene.account.stored += outcome.length;
            parked.stored(outcome);
          }
        }
      } finally {
        parked.check();
      }
    },
  };
}

/** The queue is gone or full. */
function isRefusal(outcome: Error): boolean {
  return outcome instanceof RowmqError && ['queue-not-found', 'queue-full'].includes(outcome.code);
}

/** Consumers who wait at a broker during one enqueue, for some of its messages. */
class ParkedConsumers {
  private readonly answered = new Map<object, number>();
  private readonly leased: LeasedMessage[] = [];
  private readonly ids = new Set<string>();

  constructor(private readonly scene: Scene) {}

  readonly reserve: Reserve = ({ id: queueId, name: queue }, messages) => {
    const { account, held } = this.scene;
    return [1, 0.1].map((leaseSeconds) => {
      const maxMessages = 1 + Math.floor((Math.random() * messages) / 2);
      const consumer = {};
      this.answered.set(consumer, 0);
      const answer = (): void => void this.answered.set(consumer, (this.answered.get(consumer) ?? 0) + 1);
      const begunAt = performance.now();
      return {
        maxMessages,
        leaseSeconds,
        cancel: answer,
        handOff: (leased) => {
          answer();
          if (leased.length === 0 || leased.length > maxMessages)
            account.fault(`a consumer who wanted ${maxMessages} messages got ${leased.length}`);
          account.handedOff += leased.length;
          account.recordLeased(leased, begunAt);
          this.leased.push(...leased);
          const until = begunAt + leaseSeconds * 1000;
          held.add(leased.map((lease) => ({ queue, queueId, lease, until, isSlow: Math.random() < SHARE_SLOW })));
        },
      };
    });
  };

  /** These messages of the enqueue are stored. */
  stored(ids: readonly Buffer[]): void {
    for (const id of ids) this.ids.add(id.toString('latin1'));
  }

  /** Each consumer has had one answer, and no message that was not stored or that another got. */
  check(): void {
    const { account } = this.scene;
    for (const count of this.answered.values()) {
      if (count !== 1) account.fault(`a reserved consumer got ${count} answers`);
    }
    const handedOff = this.leased.map(({ messageId }) => messageId.toString('latin1'));
    if (new Set(handedOff).size < handedOff.length) account.fault('two consumers were handed the same message');
    if (handedOff.some((id) => !this.ids.has(id))) account.fault('a message was handed off that was not stored');
  }
}

/** Enqueues in a caller's transaction of either isolation level, and may roll it back. */
function planTransactionalEnqueue(scene: Scene, { database }: TestStore): Plan | undefined {
  if (scene.account.owed > MOST_OWED) return undefined;
  const name = scene.anyQueue();
  const isolation = oneOf(['READ COMMITTED', 'REPEATABLE READ'] as const);
  const changesItsMind = Math.random() < 0.2;
  const body = JSON.stringify({ from: 'stress' });
  const batch = Array.from({ length: 5 }, () => ({
    body,
    bodyEncoding: 'utf8' as const,
    priority: 4,
    expiresInSeconds: 3,
  }));
  return {
    queues: [name],
    carryOut: () =>
      scene.meetings.during(async () => {
        try {
          await database.dataSource.transaction(isolation, async (manager) => {
            await enqueue(manager, name, batch);
            await sleep(Math.random() * 5);
            if (changesItsMind) throw new ChangeOfMind();
          });
          scene.account.stored += batch.length;
        } catch (error) {
          if (!(error instanceof ChangeOfMind)) throw error;
        }
      }),
  };
}

class ChangeOfMind extends Error {}

/** Like a broker, runs one claim of a queue at a time. */
async function planDequeue(scene: Scene, store: TestStore): Promise<Plan | undefined> {
  const busy = scene.claimedBy(store);
  const known = await store.queues.getAll(someOf(scene.queues));
  const queue = [...known.values()].find(({ name }) => !busy.has(name));
  if (queue === undefined) return undefined;
  busy.add(queue.name);
  return {
    queues: [queue.name],
    carryOut: async () => {
      try {
        await dequeue(scene, store, queue);
      } finally {
        busy.delete(queue.name);
      }
    },
  };
}

/**
 * Consumers with leases from long enough to hardly longer than a round trip. They want few messages
 * or many, so claims take deliveries in part and whole.
 */
async function dequeue(scene: Scene, { messages }: TestStore, queue: Queue): Promise<void> {
  const demands = [1, 0.5, 0.1].map((leaseSeconds) => ({
    leaseSeconds,
    maxMessages: 1 + Math.floor(Math.random() * 20),
  }));
  const begunAt = performance.now();
  const { leased, claimAgain } = await messages.batches.claim(queue, demands);
  for (const [position, some] of leased.entries()) {
    const until = begunAt + (demands[position]?.leaseSeconds ?? 0) * 1000;
    scene.account.recordLeased(some, begunAt);
    scene.held.add(
      some.map((lease) => ({
        queue: queue.name,
        queueId: queue.id,
        lease,
        until,
        isSlow: Math.random() < SHARE_SLOW,
      })),
    );
  }
  await claimAgain;
}

function planAck(scene: Scene, { messages }: TestStore, some: Held[]): Plan | undefined {
  return planForHeld(some, async (held) => {
    const requests = requestsFor(held);
    const outcomes = await messages.batches.ack(requests);
    for (const [index, { receipts }] of requests.entries()) scene.account.recordAcks(receipts, outcomes[index] ?? []);
  });
}

function planForHeld(held: Held[], carryOut: (held: Held[]) => Promise<void>): Plan | undefined {
  if (held.length === 0) return undefined;
  return { queues: [...new Set(held.map(({ queue }) => queue))], carryOut: () => carryOut(held) };
}

function planPut(scene: Scene, queues: TestStore['queues'], name: string, settings: PutQueueRequest): Plan {
  return {
    queues: settings.deadLetterQueue ? [name, settings.deadLetterQueue] : [name],
    carryOut: async () => {
      await queues.put(name, settings);
      if (name === scene.passing) scene.isThere = true;
    },
  };
}

/** The lasting queues remain each other's dead-letter queues. */
function anySettings({ lasting, passing }: Scene, name: string): PutQueueRequest {
  const [one, other] = lasting;
  const deadLetterQueue = name === passing ? oneOf([...lasting, null]) : name === one ? other : one;
  const maxReceives = deadLetterQueue === null ? null : oneOf([1, 2, 3, null]);
  return { ...SETTINGS, maxReceives, maxDepth: oneOf([null, null, 50_000]), deadLetterQueue };
}

function someMessages(scene: Scene): NewMessage[] {
  const count = 1 + Math.floor(Math.random() * 20);
  const first = someMessage(scene);
  if (Math.random() < SHARE_UNIFORM) return Array.from({ length: count }, () => first);
  return Array.from({ length: count }, () => someMessage(scene));
}

function someMessage(scene: Scene): NewMessage {
  return message({
    priority: oneOf([3, 4, 5]),
    ...(scene.isLongLived() ? {} : { expiresInSeconds: 2 + Math.ceil(Math.random() * 3) }),
    ...(Math.random() < 0.05 ? { delaySeconds: LONGEST_DELAY_SECONDS } : {}),
  });
}
