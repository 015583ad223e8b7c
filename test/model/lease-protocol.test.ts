import fc from 'fast-check';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { testServer } from '../support/servers.js';
import { tally } from './compare.js';
import { history } from './histories.js';
import { runHistory } from './run-history.js';
import type { History } from './steps.js';
import { timeLimitMs } from './time-limit.js';
import { inWords } from './words.js';
import { START, World } from './world.js';

/*
 * Compares the store with the model of the lease protocol. Random histories run on both. Every
 * answer of the store must be the model's, or one that it allows. README.md explains how to run
 * more histories and how to repeat one.
 */

/** An event of a tenth of all histories is absent from so many once in 300,000 runs. */
const FEWEST = 120;
const RUNS = Number(process.env['ROWMQ_MODEL_RUNS'] ?? FEWEST);
const SEED = process.env['ROWMQ_MODEL_SEED'];
/** Selects one history, as a failure prints it. */
const PATH = process.env['ROWMQ_MODEL_PATH'];

let world: World;

beforeAll(async () => {
  world = await World.open();
});
afterAll(() => world.close());

it('the database’s clock shows the time that the test set', async () => {
  for (const ms of [0, 1, 123, 999, 1000, 86_400_007]) {
    world.now = START + ms;
    const rows = await world.database.read<{ now: number }>(
      'SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS UNSIGNED) AS now',
    );
    expect(rows).toEqual([{ now: START + ms }]);
  }
});

it(
  `the store agrees with the model of the lease protocol in ${RUNS} random histories`,
  async () => {
    const started = Date.now();
    const property = fc.asyncProperty(history, (one) => runHistory(world, one));
    const result = await fc.check(property, {
      numRuns: RUNS,
      ...(SEED !== undefined && { seed: Number(SEED) }),
      ...(PATH !== undefined && { path: PATH, endOnFailure: true }),
    });
    if (result.failed) throw new Error(failure(result), { cause: result.errorInstance });
    console.log(
      `${result.numRuns} histories on ${testServer().kind}, ${((Date.now() - started) / result.numRuns).toFixed(1)} ms each, seed ${result.seed}:`,
      Object.fromEntries([...tally].toSorted(([one], [other]) => one.localeCompare(other))),
    );
    // Histories in which nothing happens would pass too.
    for (const event of RUNS < FEWEST || PATH !== undefined ? [] : COMMON)
      expect(tally.get(event), event).toBeGreaterThan(0);
    for (const event of RUNS < 5000 || PATH !== undefined ? [] : RARE)
      expect(tally.get(event), event).toBeGreaterThan(0);
  },
  timeLimitMs(RUNS),
);

/** Events that occur in at least a tenth of all histories. */
const COMMON = [
  'enqueued',
  'handed out',
  'handed off',
  'claim in several queues',
  'acks carried',
  'ack',
  'nack',
  'extend',
  'release',
  'ack of a part',
  'reject of a part',
  'purged',
  'cancelled',
  'duplicate',
  'ahead in line',
  'expired on sight',
  'dead-lettered on sight',
  'invalid-request',
  'lease-lost',
  'delivery-not-found',
  'job done',
];
const RARE = [
  'nack of a part',
  'extend of a part',
  'replayed',
  'duplicate of a topic',
  'message-leased',
  'enqueued behind a transaction',
  'reject',
  'release of a part',
  'redriven',
  'cut',
  'queue-full',
  'queue-not-found',
  'dead-lettered after its expiry',
  'job: redrive',
  'job: move',
  'job: drop',
  'job: purge',
  'job taken over',
  'job of another worker',
  'job that has ended',
  'job whose worker stops',
  'job whose worker fails',
  'job cancelled',
];

/** Reports the difference, the shortest history that shows it, and the command that repeats it. */
function failure({ counterexample, counterexamplePath, seed, numRuns, numShrinks, errorInstance }: Failure): string {
  const [shortest] = counterexample ?? [];
  return [
    `Store and model differ. ${String(errorInstance)}`,
    '',
    `The history, number ${numRuns}, shrunk ${numShrinks} times to ${shortest?.steps.length} steps:`,
    ...(shortest === undefined ? [] : inWords(shortest)),
    '',
    `Repeat with: npm run test:model -- --server ${testServer().kind} --seed ${seed} --path ${counterexamplePath}`,
  ].join('\n');
}

type Failure = Pick<
  fc.RunDetails<[History]>,
  'counterexample' | 'counterexamplePath' | 'seed' | 'numRuns' | 'numShrinks' | 'errorInstance'
>;
