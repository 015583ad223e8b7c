import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { RowmqError, type PutQueueRequest } from '@rowmq/contract';
import { FIRST_ID, JobRepository, type LeasedMessage, type NewMessage, type Queue, type Reserve } from '@rowmq/store';
import { enqueue } from '../../../libs/typeorm/src/index.js';
import { message, type TestStore } from '../../support/store.js';
import { PUBLISHED } from './account.js';
import { type Held, requestsFor } from './held-leases.js';
import {
  LAST_ID,
  oneOf,
  type Plan,
  planForQueue,
  planForSome,
  type Scene,
  SETTINGS,
  someNumber,
  someOf,
  type Statements,
} from './scene.js';

/** Producers pause while this many messages are owed. */
const MOST_OWED = 3000;
const LONGEST_DELAY_SECONDS = 1;
/** The share of leases whose consumers take longer than the lease. */
const SHARE_SLOW = 0.4;
const PURGED_AT_ONCE = 20;
const REPORTS = 4;
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
  publish: {
    weight: 3,
    // A topic or a queue changed in every round.
    refusals: ['overloaded'],
    plan: planPublish,
  },
  'enqueue, transactional': {
    weight: 2,
    // The queue just got a maximum depth, or the caller's transaction yielded to DDL.
    refusals: ['queue-not-found', 'queue-full', 'queue-paused', 'overloaded'],
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
  job: {
    weight: 2,
    // The passing queue is gone.
    refusals: ['queue-not-found'],
    plan: (scene, store) => planForQueue(scene, store, (queue) => carryOutJob(scene, store, queue)),
  },
  'one message': {
    weight: 1,
    // It has moved or was settled, has nowhere to go, or its lease is about to end all the time.
    refusals: ['delivery-not-found', 'invalid-request', 'overloaded'],
    plan: (scene, store) =>
      planForQueue(scene, store, async (queue) => {
        const { deliveries } = await store.browse.browse(
          queue.id,
          oneOf(['ready', 'delayed', 'leased']),
          20,
          undefined,
        );
        const target = await store.queues.get(oneOf(scene.lasting));
        for (const { messageId } of deliveries.slice(0, 2)) {
          const wish = oneOf([{ does: 'release' }, { does: 'redrive' }, { does: 'move', target }] as const);
          await store.messages.batches.fulfil(messageId, [queue.id], { ...wish, reaches: () => true });
        }
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
      const side = Math.random() < 0.8 ? 'paused' : 'producersPaused';
      const sides = { [side]: Math.random() < 0.5 };
      return {
        queues: [name],
        carryOut: async () => {
          await queues.setPaused(name, sides);
          // Producers that stay away would leave the others nothing to meet.
          await queues.setPaused(name, { producersPaused: false });
        },
      };
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
  'change topic': {
    weight: 0.5,
    refusals: ['topic-not-found', 'subscription-not-found', 'queue-not-found', 'database-unavailable'],
    plan: planTopicChange,
  },
  'count events': {
    weight: 1,
    plan: (scene, { queues, minutes }) =>
      planForSome(scene, queues, async (known) => {
        const counts = () => ({ enqueued: someNumber(), acked: someNumber(), purged: someNumber() });
        // Brokers report at the same time, each its own queues in its own order.
        const reports = Array.from({ length: REPORTS }, () => new Map(someOf(known).map(({ id }) => [id, counts()])));
        await Promise.all(reports.map((report) => minutes.add(report)));
      }),
  },
  browse: {
    weight: 1,
    plan: (scene, store) =>
      planForQueue(scene, store, async ({ id }) => {
        const look = Math.random();
        if (look < 0.4) await store.browse.stats(id);
        else if (look < 0.6) await store.minutes.stretches();
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
            parked.stored(outcome.map(({ id }) => id));
          }
        }
      } finally {
        parked.check();
      }
    },
  };
}

/** The queue or the topic is gone, or the queue is full or paused. */
function isRefusal(outcome: Error): boolean {
  const codes = ['queue-not-found', 'topic-not-found', 'queue-full', 'queue-paused'];
  return outcome instanceof RowmqError && codes.includes(outcome.code);
}

/** Publishes to several topics at once, whose subscriptions want different messages. */
function planPublish(scene: Scene, { messages: { batches } }: TestStore): Plan | undefined {
  if (scene.account.owed > MOST_OWED) return undefined;
  return {
    queues: scene.queues,
    carryOut: async () => {
      const requests = someOf(scene.topics).map((topicName) => ({
        topicName,
        messages: someMessages(scene).map((one) => ({ ...one, body: PUBLISHED, values: { kind: oneOf(KINDS) } })),
      }));
      const parked = new ParkedConsumers(scene);
      try {
        for (const outcome of await batches.publish(requests, { reserve: parked.reserve })) {
          if (outcome instanceof Error) {
            if (!isRefusal(outcome)) throw outcome;
          } else {
            scene.account.recordPublished(outcome);
            parked.stored(outcome.map(({ id }) => id));
          }
        }
      } finally {
        parked.check();
      }
    },
  };
}

const KINDS = ['x', 'y', 'z'];

/** Subscribes, unsubscribes, and creates and deletes the passing topic. */
function planTopicChange(scene: Scene, { topics }: TestStore): Plan {
  const queue = scene.anyQueue();
  const topic = oneOf(scene.topics);
  const passing = scene.topics.at(-1) as string;
  const change = oneOf([
    () => topics.putSubscription(topic, queue, oneOf([null, { kind: [oneOf(KINDS)] }])),
    () => topics.putSubscription(topic, queue, null),
    () => topics.deleteSubscription(topic, queue),
    () => topics.put(passing),
    () => topics.delete(passing),
  ]);
  return { queues: [queue], carryOut: async () => void (await change()) };
}

/** Consumers who wait at a broker during one enqueue, for some of its messages. */
class ParkedConsumers {
  private readonly answered = new Map<object, number>();
  /** By queue. */
  private readonly leased = new Map<string, LeasedMessage[]>();
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
          this.leased.set(queue, [...(this.leased.get(queue) ?? []), ...leased]);
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
    for (const leased of this.leased.values()) {
      const handedOff = leased.map(({ messageId }) => messageId.toString('latin1'));
      if (new Set(handedOff).size < handedOff.length) account.fault('two consumers were handed the same message');
      if (handedOff.some((id) => !this.ids.has(id))) account.fault('a message was handed off that was not stored');
    }
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
  const queues = [...known.values()].filter(({ name }) => !busy.has(name));
  if (queues.length === 0) return undefined;
  for (const { name } of queues) busy.add(name);
  return {
    queues: queues.map(({ name }) => name),
    carryOut: async () => {
      try {
        await dequeue(scene, store, queues);
      } finally {
        for (const { name } of queues) busy.delete(name);
      }
    },
  };
}

/**
 * Consumers with leases from long enough to hardly longer than a round trip. They want few messages
 * or many, so claims take deliveries in part and whole.
 */
async function dequeue(scene: Scene, { messages }: TestStore, queues: readonly Queue[]): Promise<void> {
  const demands = [1, 0.5, 0.1].map((leaseSeconds) => ({
    leaseSeconds,
    maxMessages: 1 + Math.floor(Math.random() * 20),
  }));
  const begunAt = performance.now();
  const outcomes = await messages.batches.claim(queues.map((queue) => ({ queue, demands })));
  for (const [index, { leased }] of outcomes.entries()) {
    const { id: queueId, name } = queues[index] as Queue;
    for (const [position, some] of leased.entries()) {
      const until = begunAt + (demands[position]?.leaseSeconds ?? 0) * 1000;
      scene.account.recordLeased(some, begunAt);
      scene.held.add(some.map((lease) => ({ queue: name, queueId, lease, until, isSlow: Math.random() < SHARE_SLOW })));
    }
  }
  await Promise.all(outcomes.map(async ({ claimAgain }) => claimAgain));
}

/** An operator's job, of which a broker carries out some batches before it is cancelled. */
async function carryOutJob(scene: Scene, store: TestStore, queue: Queue): Promise<void> {
  const jobs = new JobRepository(store.database);
  const kind = oneOf(['redrive', 'redrive', 'drop', 'purge'] as const);
  const filter = oneOf([{}, { reason: 'stress' }, { body: 'o' }]);
  const others = (await store.queues.getAll(scene.lasting.filter((name) => name !== queue.name))).values();
  const target = kind === 'redrive' ? oneOf([null, ...others]) : null;
  const job = { kind, queue, target, patterns: [], messagesPerSecond: null, maxMessages: null };
  const { id } = await jobs.create({ ...job, filter: kind === 'purge' ? {} : filter });
  const worker = randomUUID();
  try {
    if (!(await jobs.acquire(id, worker))) throw new Error('another broker has a new job');
    for (let batches = 0; batches < 3; batches += 1) {
      const batch = await jobs.runBatch(id, worker, { rows: kind === 'redrive' ? 50 : 5, most: PURGED_AT_ONCE });
      if (kind !== 'redrive') scene.account.purged += batch.count;
      if (batch.job.state === 'done') break;
    }
  } finally {
    const { done, state } = await jobs.cancel(id);
    scene.account.jobs.set(state, (scene.account.jobs.get(state) ?? 0) + done);
  }
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
  const deadLetterExpired = deadLetterQueue !== null && Math.random() < 0.3;
  return { ...SETTINGS, maxReceives, deadLetterExpired, maxDepth: oneOf([null, null, 50_000]), deadLetterQueue };
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
