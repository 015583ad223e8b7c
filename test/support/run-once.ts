/**
 * Tests that run on one kind of server only, because the kind does not matter to them. All other
 * tests below test/ run on every kind. Paths are relative to the repository.
 */
export const RUN_ONCE: readonly string[] = [
  // The backup is MySQL's own, and the balancer knows nothing of the database.
  'test/e2e/balancer.test.ts',
  'test/e2e/backup.test.ts',
  // Programs around the broker: they reach it through its API, and the contract tests check that
  // API on every kind.
  'test/e2e/bench.test.ts',
  'test/e2e/client.test.ts',
  'test/e2e/example-deployment.test.ts',
  'test/e2e/example-orders.test.ts',
  'test/e2e/in-memory-broker.test.ts',
  'test/e2e/simulator.test.ts',
  // This tests the packages. transactional-enqueue.test.ts runs the SQL of one on every kind.
  'test/e2e/published-packages.test.ts',
  // store/deduplication.test.ts runs its SQL on every kind.
  'test/e2e/contract-deduplication.test.ts',
  // The campaign kills all connections on every kind, too.
  'test/e2e/contract-database.test.ts',
  // These test a program around the broker. cli.test.ts runs its commands on every kind.
  'test/e2e/cli-completion.test.ts',
  'test/e2e/cli-docs.test.ts',
  'test/e2e/cli-operations.test.ts',
  'test/e2e/cli-terminal.test.ts',
  'test/e2e/key-create.test.ts',
  // Programs around the broker, too. sqs/clients.test.ts runs the operations on every kind.
  'test/sqs/celery.test.ts',
  'test/sqs/fifo.test.ts',
  'test/sqs/libraries.test.ts',
  'test/sqs/presigned.test.ts',
  'test/sqs/signatures.test.ts',
  // These test HTTP alone: the page, the document, keys and origins, slow sockets, the commands of
  // the docs.
  'test/e2e/dashboard.test.ts',
  'test/e2e/dashboard-looks.test.ts',
  'test/e2e/dashboard-newcomer.test.ts',
  'test/e2e/docs-commands.test.ts',
  'test/e2e/docs-page.test.ts',
  'test/e2e/hostile-clients.test.ts',
  'test/e2e/http-edges.test.ts',
  // store/api-keys.test.ts runs its SQL on every kind.
  'test/e2e/keys.test.ts',
  'test/e2e/keys-trouble.test.ts',
  // store/audit.test.ts runs its SQL on every kind.
  'test/e2e/audit.test.ts',
  'test/e2e/openapi.test.ts',
  'test/e2e/security.test.ts',
  'test/e2e/slow-clients.test.ts',
  // These test the broker's waiting consumers, its hand-offs, its counts and its bounds of memory.
  // store/batches, store/splits and store/large-bodies run their SQL on every kind, the model their
  // lost COMMITs, and database-trouble.test.ts the health of a broker without its database.
  'test/e2e/back-pressure.test.ts',
  'test/e2e/contract-carried-acks.test.ts',
  'test/e2e/contract-long-poll.test.ts',
  'test/e2e/contract-operations.test.ts',
  'test/e2e/hand-off.test.ts',
  'test/e2e/large-bodies.test.ts',
  'test/e2e/lease-holders.test.ts',
  'test/e2e/limits.test.ts',
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
export const NEED_CHROMIUM: readonly string[] = [
  'test/e2e/dashboard.test.ts',
  'test/e2e/dashboard-looks.test.ts',
  'test/e2e/dashboard-newcomer.test.ts',
  'test/e2e/docs-page.test.ts',
];

/**
 * The longest tests, longest first. They start first, so that none of them ends the run alone on
 * one core.
 */
export const LONGEST: readonly string[] = [
  'test/faults/campaign/campaign.test.ts',
  'test/e2e/bench.test.ts',
  'test/faults/campaign/mutants.test.ts',
  'test/ha/high-availability.test.ts',
  'test/e2e/workers.test.ts',
  'test/e2e/published-packages.test.ts',
  'test/e2e/example-deployment.test.ts',
  'test/e2e/simulator.test.ts',
  'test/e2e/hostile-clients.test.ts',
  'test/e2e/rolling-restart.test.ts',
  'test/faults/reaper-killed.test.ts',
  'test/e2e/hand-off.test.ts',
  'test/e2e/peers.test.ts',
  'test/e2e/client.test.ts',
  'test/store/writable-host.test.ts',
  'test/e2e/start-recovery.test.ts',
  'test/concurrency/drain.test.ts',
  // These wait, and use little CPU.
  'libs/client/src/consumer/handling.test.ts',
  'libs/store/src/database/primary.test.ts',
  'libs/client/src/consumer/queue-consumer.test.ts',
  'test/check-prose.unit.test.ts',
  'libs/client/src/consumer/prefetch.test.ts',
  'apps/broker/src/http/connections.test.ts',
];
