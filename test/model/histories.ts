import type { JobKind } from '@rowmq/contract';
import type { Settings } from '@rowmq/client/testing';
import fc from 'fast-check';
import {
  BROKERS,
  type Cut,
  type Demand,
  type History,
  type JobFilter,
  KINDS,
  type NewMessage,
  type PickedReceipt,
  QUEUES,
  type Step,
} from './steps.js';

/* Random histories. Their steps are frequent enough to meet, and rare sequences are built in. */

/**
 * The only queue that may have a depth limit. Enqueues to it would wait for a service's open
 * transaction.
 */
const BOUNDED = 'a';
/** Usually the dead-letter queue of the others. */
const GRAVEYARD = 'c';
/** The only queue in which services enqueue within their own transactions. */
const SERVICED = 'b';

const broker = fc.constantFrom(...BROKERS);
/** Repeats one queue, so that steps meet more often. */
const queue = fc.constantFrom(...QUEUES, 'a', 'a');
const seconds = (...values: number[]): fc.Arbitrary<number> => fc.constantFrom(...values);
/** Cuts are rare, because a retry on another connection takes tens of milliseconds. */
const cut: fc.Arbitrary<Cut | null> = fc.oneof(
  { weight: 200, arbitrary: fc.constant(null) },
  { weight: 2, arbitrary: fc.constantFrom<Cut>('before', 'after') },
  { weight: 1, arbitrary: fc.constant<Cut>('late') },
);

/** The last instant is more than 366 days ahead. */
const availability = fc.constantFrom<Pick<NewMessage, 'delaySeconds' | 'availableInMs'>>(
  ...Array.from({ length: 6 }, () => ({})),
  { delaySeconds: 0 },
  { delaySeconds: 1 },
  { delaySeconds: 5 },
  { availableInMs: -1000 },
  { availableInMs: 0 },
  { availableInMs: 1 },
  { availableInMs: 2500 },
  { availableInMs: 31_622_400_001 },
);
const message: fc.Arbitrary<NewMessage> = fc
  .record({
    priority: fc.constantFrom(4, 9, 0),
    availability,
    expiresInSeconds: fc.constantFrom(...Array<undefined>(6).fill(undefined), 1, 2, 10),
    deduplicationId: fc.constantFrom(...Array<undefined>(8).fill(undefined), 'x', 'x', 'y'),
    groupId: fc.constantFrom(...Array<undefined>(6).fill(undefined), 'g', 'h'),
  })
  .map(({ availability: of, ...rest }) => ({ ...rest, ...of }));
/** Messages that differ, or several that share a fate and so a delivery. */
const messages = fc.oneof(
  fc.array(message, { minLength: 1, maxLength: 4 }),
  fc.tuple(message, fc.integer({ min: 2, max: 6 })).map(([one, count]) => Array<NewMessage>(count).fill(one)),
);
const demand = fc.record({ maxMessages: fc.constantFrom(1, 1, 2, 3, 10), leaseSeconds: seconds(30, 1, 2) });
const pick: fc.Arbitrary<PickedReceipt> = fc.record({
  nth: fc.constantFrom(0, 1, 2, 3, 0, 1, 2, 3, 5, 8, 13),
  as: fc.oneof(
    { weight: 9, arbitrary: fc.constant('given' as const) },
    { weight: 1, arbitrary: fc.constantFrom('sent to another queue', 'with no token', 'with another token') },
  ),
});
const receipts = fc.array(pick, { minLength: 1, maxLength: 4 });
/** Most dequeues carry no acks. The receipts may be of other queues. */
const acks = fc.oneof({ weight: 3, arbitrary: fc.constant<PickedReceipt[]>([]) }, { weight: 1, arbitrary: receipts });
const some = <T>(request: fc.Arbitrary<T>): fc.Arbitrary<T[]> => fc.array(request, { minLength: 1, maxLength: 2 });

const maxDepth = fc.constantFrom(null, null, 3, 8);
const common = {
  delaySeconds: fc.constantFrom(0, 0, 0, 1),
  messageTtlSeconds: fc.constantFrom(345_600, 345_600, 345_600, 5),
  maxReceives: fc.constantFrom(null, 1, 1, 2),
};
const SETTINGS = [
  'maxReceives',
  'deadLetterQueue',
  'deadLetterExpired',
  'maxDepth',
  'delaySeconds',
  'messageTtlSeconds',
] as const;
const othersThan = (name: string): string[] => QUEUES.filter((other) => other !== name);
/** A queue without a dead-letter queue cannot keep expired messages. */
const settingsOf = (name: string): fc.Arbitrary<Settings> =>
  fc
    .record({
      ...common,
      deadLetterQueue: fc.constantFrom(null, ...othersThan(name), name === GRAVEYARD ? null : GRAVEYARD),
      deadLetterExpired: fc.constantFrom(false, false, true),
      maxDepth: name === BOUNDED ? maxDepth : fc.constant(null),
    })
    .map(({ deadLetterExpired, ...settings }) => ({
      ...settings,
      deadLetterExpired: deadLetterExpired && settings.deadLetterQueue !== null,
    }));
/** A change of one setting of a queue. */
const change = queue.chain((name) =>
  fc
    .record({ settings: settingsOf(name), setting: fc.constantFrom(...SETTINGS) })
    .map(({ settings, setting }) => ({ queue: name, settings: { [setting]: settings[setting] } as Partial<Settings> })),
);

const does = <const Verb extends string>(verb: Verb): fc.Arbitrary<Verb> => fc.constant(verb);

const queueOrNone = fc.oneof({ weight: 30, arbitrary: queue }, { weight: 1, arbitrary: fc.constant('nowhere') });
/** Most messages find no consumer that waits. */
const waiting = fc.oneof({ weight: 4, arbitrary: fc.constant<Demand[]>([]) }, { weight: 1, arbitrary: some(demand) });
const enqueues = some(fc.record({ queue: queueOrNone, messages, waiting }));
const dequeues = fc.uniqueArray(fc.record({ queue, demands: some(demand), acks }), {
  minLength: 1,
  maxLength: 2,
  selector: (request) => request.queue,
});
const nacks = some(fc.record({ receipts, delaySeconds: seconds(0, 0, 1, 5) }));
const extensions = some(fc.record({ receipts, leaseSeconds: seconds(30, 1, 5) }));
const ms = fc.constantFrom(1, 50, 50, 100, 100, 101, 249, 250, 250, 500, 1000, 61_000);

/** Half of the jobs want everything. */
const filter = fc.oneof(
  { weight: 1, arbitrary: fc.constant<JobFilter>({}) },
  {
    weight: 1,
    arbitrary: fc.constantFrom<JobFilter>(
      ...QUEUES.map((source) => ({ source })),
      ...(['rejected', 'max-receives', 'expired', 'redriven'] as const).map((cause) => ({ cause })),
      { kind: 'y' },
      { body: '1' },
      { body: '2' },
      { source: 'a', body: '3' },
      { movedWithinMs: 0 },
      { movedWithinMs: 1000 },
    ),
  },
);
const inGraveyard = fc.constantFrom<string>(GRAVEYARD, GRAVEYARD, GRAVEYARD, ...QUEUES);
const newJob = (jobQueue: fc.Arbitrary<string>): fc.Arbitrary<Step> =>
  fc.record({
    does: does('startJob'),
    broker,
    kind: fc.constantFrom<JobKind>('redrive', 'redrive', 'redrive', 'drop', 'purge'),
    queue: jobQueue,
    target: fc.constantFrom(null, ...QUEUES, ...QUEUES),
    filter,
    maxMessages: fc.constantFrom(null, null, null, 1, 3),
  });
const startJob = newJob(inGraveyard);
/** Usually the latest job. */
const nthJob = fc.constantFrom(0, 0, 0, 1, 2);
const ofJob = {
  does: does('runJob'),
  broker,
  nth: nthJob,
  rows: fc.constantFrom(1, 2, 500),
  most: fc.constantFrom(Infinity, Infinity, 1, 2),
  batches: fc.constantFrom(1, 1, 2, 20),
  cut,
};
const runJob = fc.record(ofJob);
const leaveJob = fc.record({
  does: does('leaveJob'),
  broker,
  nth: nthJob,
  how: fc.constantFrom('stops' as const, 'fails' as const),
});

const published = fc.array(
  fc.tuple(message, fc.constantFrom(...KINDS)).map(([{ groupId: _, ...one }, kind]) => ({ ...one, kind })),
  { minLength: 1, maxLength: 6 },
);
const waitingIn = fc.record(Object.fromEntries(QUEUES.map((name) => [name, waiting])));
const publish = fc.record({ does: does('publish'), broker, messages: published, waiting: waitingIn, cut });

/** The kinds of steps and their weights. */
const STEPS: [weight: number, fc.Arbitrary<Step>][] = [
  [9, fc.record({ does: does('enqueue'), broker, requests: enqueues, cut })],
  [4, publish],
  [14, fc.record({ does: does('dequeue'), broker, requests: dequeues, cut })],
  [4, fc.record({ does: does('wait'), ms })],
  [7, fc.record({ does: does('waitFor'), nth: fc.nat(4), ms: fc.constantFrom(0, -1, 1) })],
  [4, fc.record({ does: does('ack'), broker, requests: some(fc.record({ receipts })), cut })],
  [3, fc.record({ does: does('nack'), broker, requests: nacks, cut })],
  [2, fc.record({ does: does('extend'), broker, requests: extensions, cut })],
  [4, fc.record({ does: does('reject'), broker, receipts, cut })],
  [3, fc.record({ does: does('release'), broker, requests: nacks, cut })],
  [3, fc.record({ does: does('cancel'), broker, nth: fc.constantFrom(0, 1, 2, 3, 5, 8), cut })],
  [1, fc.record({ does: does('poll'), broker })],
  [1, fc.record({ does: does('expire'), cut })],
  [1, fc.record({ does: does('deadLetter'), cut })],
  [
    6,
    fc.record({
      does: does('redrive'),
      queue: inGraveyard,
      most: fc.constantFrom(Infinity, 1, 2),
      cut,
    }),
  ],
  [1, fc.record({ does: does('purge'), queue, cut })],
  [3, fc.record({ does: does('replay'), queue })],
  [3, startJob],
  [5, runJob],
  [1, leaveJob],
  [1, fc.record({ does: does('cancelJob'), broker, nth: nthJob })],
  [1, fc.record({ does: does('configure'), broker, change }).map(({ change: of, ...rest }) => ({ ...rest, ...of }))],
  [1, fc.record({ does: fc.constantFrom('resume' as const, 'pause' as const), broker, queue })],
  [1, fc.record({ does: does('restart'), broker })],
  [1, fc.record({ does: does('begin'), queue: fc.constant(SERVICED), messages })],
  [1, fc.record({ does: fc.constantFrom('commit' as const, 'rollBack' as const) })],
];
const step = fc.oneof(...STEPS.map(([weight, arbitrary]) => ({ weight, arbitrary })));

const OTHERS = QUEUES.filter((name) => name !== GRAVEYARD);
const enqueueInOthers = fc.tuple(...OTHERS.map((name) => fc.record({ queue: fc.constant(name), messages, waiting })));
const demands = seconds(30, 1).map((leaseSeconds) => [{ maxMessages: 10, leaseSeconds }]);
const dequeueFromOthers = fc.tuple(...OTHERS.map((name) => fc.record({ queue: fc.constant(name), demands, acks })));
/** Sequences that are rare by chance. A history contains a part of one, in this order. */
const TO_THE_GRAVEYARD_AND_BACK: fc.Arbitrary<Step>[] = [
  fc.record({ does: does('enqueue'), broker, requests: enqueueInOthers, cut }),
  fc.record({ does: does('dequeue'), broker, requests: dequeueFromOthers, cut }),
  fc.record({ does: does('reject'), broker, receipts, cut }),
  fc.record({ does: does('waitFor'), nth: fc.constantFrom(0, 1), ms: fc.constant(0) }),
  fc.record({ does: does('dequeue'), broker, requests: dequeueFromOthers, cut }),
  fc.record({ does: does('deadLetter'), cut }),
  fc.record({ does: does('redrive'), queue: fc.constant(GRAVEYARD), most: fc.constantFrom(Infinity, 2), cut }),
];
const partOf = (all: fc.Arbitrary<Step>[]): fc.Arbitrary<Step[]> =>
  fc
    .tuple(fc.tuple(...all), fc.subarray([...all.keys()], { minLength: 1 }))
    .map(([made, kept]) => kept.map((index) => made[index]!));
const lasting = message.map(({ priority, groupId }): NewMessage => ({ priority, groupId, delaySeconds: 0 }));
const someLasting = fc.oneof(
  fc.array(lasting, { minLength: 2, maxLength: 6 }),
  fc.tuple(lasting, fc.integer({ min: 2, max: 6 })).map(([one, copies]) => Array<NewMessage>(copies).fill(one)),
);
const enqueueLasting = fc.tuple(
  ...OTHERS.map((name) =>
    fc.record({ queue: fc.constant(name), messages: someLasting, waiting: fc.constant<Demand[]>([]) }),
  ),
);
const leftAlone = fc.oneof(
  leaveJob,
  fc.constantFrom(14_999, 15_000, 15_000).map((passed): Step => ({ does: 'wait', ms: passed })),
);
/** A small batch, and then others, perhaps by another broker, while the messages move and die. */
const batchesOfAJob = fc
  .record({
    worker: broker,
    goesOn: fc.boolean(),
    first: fc.record({ ...ofJob, nth: fc.constant(0), rows: fc.constantFrom(1, 1, 2, 500), batches: fc.constant(1) }),
    meanwhile: fc.oneof(
      // They come back, and too late for the job.
      fc.tuple(
        fc.record({ does: does('wait'), ms: fc.constant(1) }),
        fc.record({ does: does('dequeue'), broker, requests: dequeueFromOthers, cut }),
        fc.record({ does: does('reject'), broker, receipts, cut }),
      ),
      // The job goes to another broker, which may come too early.
      partOf([fc.record({ does: does('restart'), broker }), leftAlone]),
      partOf([
        fc.record({ does: does('dequeue'), broker, requests: dequeues, cut }),
        fc.record({ does: does('reject'), broker, receipts, cut }),
        fc.record({ does: fc.constantFrom('expire' as const, 'deadLetter' as const), cut }),
        leftAlone,
      ]),
    ),
    last: fc.record({ ...ofJob, nth: fc.constant(0), batches: fc.constantFrom(1, 20, 20) }),
  })
  .map(({ worker, goesOn, first, meanwhile, last }): Step[] => [
    { ...first, broker: worker },
    ...meanwhile,
    { ...last, broker: goesOn ? worker : last.broker },
  ]);
const AROUND_A_JOB = fc.oneof(
  fc.tuple(
    fc.record({ does: does('enqueue'), broker, requests: enqueueLasting, cut }),
    newJob(fc.constantFrom(...OTHERS)),
    batchesOfAJob,
  ),
  fc.tuple(
    fc.record({ does: does('enqueue'), broker, requests: enqueueLasting, cut }),
    fc.record({ does: does('dequeue'), broker, requests: dequeueFromOthers, cut }),
    fc.record({ does: does('reject'), broker, receipts, cut }),
    fc.record({ does: does('reject'), broker, receipts, cut }),
    newJob(fc.constant(GRAVEYARD)),
    batchesOfAJob,
  ),
);
const enqueueInBounded = (expiry: fc.Arbitrary<number | undefined>): fc.Arbitrary<Step> => {
  const short = expiry.chain((expiresInSeconds) =>
    fc.array(
      message.map(({ priority }) => ({ priority, delaySeconds: 0, expiresInSeconds })),
      { minLength: 2, maxLength: 3 },
    ),
  );
  const requests = fc.tuple(fc.record({ queue: fc.constant<string>(BOUNDED), messages: short, waiting }));
  return fc.record({ does: does('enqueue'), broker, requests, cut });
};
/** Expired messages must leave room for others, though nobody has removed them yet. */
const FULL_OF_EXPIRED: fc.Arbitrary<Step>[] = [
  enqueueInBounded(fc.constant(1)),
  fc.record({ does: does('waitFor'), nth: fc.constantFrom(0, 0, 1), ms: fc.constantFrom(0, -1, 1) }),
  enqueueInBounded(fc.constant(undefined)),
];
const aDuplicate = fc
  .tuple(message, fc.constantFrom('x', 'y'))
  .map(([{ availableInMs: _, ...one }, deduplicationId]) => [{ ...one, delaySeconds: 0, deduplicationId }]);
/** An enqueue must wait for the first use of its id, though that commits late. */
const BEHIND_A_TRANSACTION: fc.Arbitrary<Step>[] = [
  fc.record({ does: does('begin'), queue: fc.constant(SERVICED), messages: aDuplicate }),
  fc.record({
    does: does('enqueue'),
    broker,
    requests: fc.tuple(fc.record({ queue: fc.constant<string>(SERVICED), messages: aDuplicate, waiting })),
    cut,
  }),
];
const sequence = fc.oneof(
  { weight: 5, arbitrary: partOf(TO_THE_GRAVEYARD_AND_BACK) },
  { weight: 7, arbitrary: AROUND_A_JOB.map((parts) => parts.flat()) },
  { weight: 1, arbitrary: partOf(FULL_OF_EXPIRED) },
  { weight: 1, arbitrary: fc.tuple(...BEHIND_A_TRANSACTION) },
);
/** fast-check tries the empty list first. Shrinking the array alone leaves too many steps. */
const steps = fc.oneof(
  { withCrossShrink: true },
  { weight: 1, arbitrary: fc.constant<Step[]>([]) },
  { weight: 60, arbitrary: step.map((one) => [one]) },
  { weight: 12, arbitrary: sequence },
);

/** About 18 steps on three queues and two brokers. With bias most histories would be short. */
export const history: fc.Arbitrary<History> = fc.noBias(
  fc.record({
    queues: fc.record(Object.fromEntries(QUEUES.map((name) => [name, settingsOf(name)]))),
    // Shrinking never removes an array's last element, so the last element is a dummy.
    steps: fc
      .array(steps, { minLength: 2, maxLength: 25, size: 'max' })
      .map((all) => all.slice(0, -1).toReversed().flat()),
  }),
);
