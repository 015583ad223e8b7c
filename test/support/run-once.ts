/**
 * Tests that run on one kind of server only, because the kind does not matter to them. All other
 * tests below test/ run on every kind. Paths are relative to the repository.
 */
export const RUN_ONCE: readonly string[] = [
  // Programs around the broker: they reach it through its API, and the contract tests check that
  // API on every kind.
  'test/e2e/bench.test.ts',
  'test/e2e/client.test.ts',
  'test/e2e/example-orders.test.ts',
  'test/e2e/in-memory-broker.test.ts',
  'test/e2e/simulator.test.ts',
  // This tests the packages. transactional-enqueue.test.ts runs the SQL of one on every kind.
  'test/e2e/published-packages.test.ts',
  // These test HTTP alone: the page, the document, keys and origins, slow sockets, the commands of
  // the docs.
  'test/e2e/docs-commands.test.ts',
  'test/e2e/docs-page.test.ts',
  'test/e2e/openapi.test.ts',
  'test/e2e/security.test.ts',
  'test/e2e/slow-clients.test.ts',
  // This tests exit codes and messages. migrations.test.ts migrates and reverts on every kind.
  'test/e2e/migrate.test.ts',
  // Hints go from broker to broker over HTTP. store/peers.test.ts runs the SQL of the table
  // `broker` on every kind.
  'test/e2e/peers.test.ts',
  // These test processes and signals. unusable-database.test.ts and database-trouble.test.ts check
  // the server's answers on every kind.
  'test/e2e/rolling-restart.test.ts',
  'test/e2e/shutdown.test.ts',
  'test/e2e/start-recovery.test.ts',
  'test/e2e/workers.test.ts',
];

/** Tests that need a browser. */
export const NEED_CHROMIUM: readonly string[] = ['test/e2e/docs-page.test.ts'];

/**
 * The longest tests, longest first. They start first, so that none of them ends the run alone on
 * one core.
 */
export const LONGEST: readonly string[] = [
  'test/e2e/rolling-restart.test.ts',
  'test/faults/campaign/campaign.test.ts',
  'test/e2e/bench.test.ts',
  'test/faults/campaign/mutants.test.ts',
  'test/ha/high-availability.test.ts',
  'test/e2e/workers.test.ts',
  'test/e2e/published-packages.test.ts',
  'test/e2e/simulator.test.ts',
  'test/e2e/peers.test.ts',
  'test/e2e/client.test.ts',
  'test/store/writable-host.test.ts',
  'test/e2e/start-recovery.test.ts',
  'test/concurrency/drain.test.ts',
  'libs/client/src/consumer/queue-consumer.test.ts',
];
