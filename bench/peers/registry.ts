import type { ServerKind } from '@rowmq/mysql-server';
import type { WorkerCounts, Peer, PeerServer, StretchKind } from './peer.js';
import { NATS_DURABILITY, startNats } from './servers/nats.js';
import { startPgmq } from './servers/pgmq.js';
import { POSTGRES_DURABILITY, startPostgres } from './servers/postgres.js';
import { RABBITMQ_DURABILITY, startRabbitMq } from './servers/rabbitmq.js';
import { REDIS_DURABILITY, startRedis } from './servers/redis.js';
import { ROWMQ_DURABILITY, startBrokers, startDatabase } from './servers/rowmq.js';

/** One at a time: the same for every peer. */
const SINGLE: WorkerCounts = { producers: 50, consumers: 50 };

/**
 * Connections for producers and pull consumers of the PostgreSQL peers. More did not make them
 * faster on two cores.
 */
const POSTGRES_POOL = 20;

/** RowMQ over HTTP, as its users have it. */
function rowmqHttp(kind: ServerKind, title: string): Peer {
  return {
    name: `rowmq-http-${kind}`,
    title: `RowMQ over HTTP, ${title}`,
    client: 'rowmq-http',
    stretches: { batch: { producers: 8, consumers: 8 }, single: SINGLE, steady: { producers: 1, consumers: 8 } },
    durability: ROWMQ_DURABILITY,
    settings: 'one broker process with its defaults; 100 messages a request; long polls',
    start: async () => startBrokers(kind, 1),
  };
}

/** The same with two brokers behind a load balancer. */
function rowmqTwoBrokers(kind: ServerKind, title: string): Peer {
  return {
    ...rowmqHttp(kind, title),
    name: `rowmq-two-brokers-${kind}`,
    title: `RowMQ over HTTP, two brokers, ${title}`,
    settings: 'as with one broker; the client deals its requests round, to each broker in turn',
    start: async () => startBrokers(kind, 2),
  };
}

/** RowMQ through the queue and the consumer of its Node client. */
function rowmqClient(kind: ServerKind, title: string): Peer {
  return {
    name: `rowmq-client-${kind}`,
    title: `RowMQ through its client, ${title}`,
    client: 'rowmq-client',
    stretches: { used: SINGLE },
    durability: ROWMQ_DURABILITY,
    settings: "one broker process; the client's defaults, a consumer of concurrency 50",
    start: async () => startBrokers(kind, 1),
  };
}

/** RowMQ's repository in the client's process, to compare with the PostgreSQL libraries. */
function rowmqRepository(kind: ServerKind, title: string): Peer {
  return {
    name: `rowmq-repository-${kind}`,
    title: `RowMQ's repository in-process, ${title}`,
    client: 'rowmq-repository',
    clientOptions: { poolSize: 8 },
    stretches: { batch: { producers: 2, consumers: 2 } },
    durability: ROWMQ_DURABILITY,
    settings: 'no broker, no HTTP; 100 messages a call',
    start: async () => startDatabase(kind),
  };
}

function graphileWorker(localQueue: number, stretches: Partial<Record<StretchKind, WorkerCounts>>): Peer {
  return {
    name: `graphile-worker-${localQueue}`,
    title: `Graphile Worker, local queue ${localQueue}`,
    client: 'graphile-worker',
    clientOptions: { poolSize: POSTGRES_POOL, localQueue },
    stretches,
    durability: POSTGRES_DURABILITY,
    settings: `addJobs of 100; 24 concurrent jobs, localQueue ${localQueue}, completeJobBatchDelay 0; one at a time and steady: no local queue, no delay. ANALYZE after warm-up`,
    start: async () => startPostgres(),
  };
}

function other(
  peer: Pick<Peer, 'name' | 'title' | 'stretches' | 'durability' | 'settings' | 'clientOptions'>,
  start: () => Promise<PeerServer>,
): Peer {
  return { ...peer, client: peer.name, start };
}

/** The peers whose storage is a PostgreSQL: those that a held snapshot hurts. */
export function postgresPeers(): Peer[] {
  return PEERS.filter(({ durability }) => durability === POSTGRES_DURABILITY);
}

/** In the order of a round: RowMQ's own among the others, so that a drifting machine hurts both. */
export const PEERS: readonly Peer[] = [
  other(
    {
      name: 'pg-boss',
      title: 'pg-boss 12',
      clientOptions: { poolSize: POSTGRES_POOL },
      stretches: { batch: { producers: 4, consumers: 4 }, single: SINGLE, steady: { producers: 1, consumers: 2 } },
      durability: POSTGRES_DURABILITY,
      settings: 'insert, fetch and complete of 100; steady: workers woken by NOTIFY. ANALYZE after warm-up',
    },
    startPostgres,
  ),
  other(
    {
      name: 'pgmq',
      title: 'pgmq',
      clientOptions: { poolSize: POSTGRES_POOL },
      stretches: { batch: { producers: 4, consumers: 4 }, single: SINGLE, steady: { producers: 1, consumers: 2 } },
      durability: POSTGRES_DURABILITY,
      settings: 'send_batch, read and delete of 100; steady: read_with_poll every 10 ms. ANALYZE after warm-up',
    },
    startPgmq,
  ),
  graphileWorker(100, {
    batch: { producers: 4, consumers: 24 },
    single: SINGLE,
    steady: { producers: 1, consumers: 10 },
  }),
  rowmqHttp('mysql', 'MySQL'),
  rowmqHttp('mariadb', 'MariaDB'),
  rowmqTwoBrokers('mysql', 'MySQL'),
  rowmqTwoBrokers('mariadb', 'MariaDB'),
  rowmqClient('mysql', 'MySQL'),
  rowmqClient('mariadb', 'MariaDB'),
  graphileWorker(500, { batch: { producers: 4, consumers: 24 } }),
  other(
    {
      name: 'bullmq',
      title: 'BullMQ 6',
      stretches: {
        batch: { producers: 8, consumers: 100 },
        single: SINGLE,
        steady: { producers: 1, consumers: 10 },
        used: SINGLE,
      },
      durability: REDIS_DURABILITY,
      settings: 'addBulk of 100; a worker of concurrency 100 (one at a time and as used: 50); removeOnComplete',
    },
    startRedis,
  ),
  rowmqRepository('mysql', 'MySQL'),
  rowmqRepository('mariadb', 'MariaDB'),
  other(
    {
      name: 'rabbitmq',
      title: 'RabbitMQ quorum queue',
      stretches: {
        batch: { producers: 8, consumers: 8 },
        single: SINGLE,
        steady: { producers: 1, consumers: 4 },
        used: SINGLE,
      },
      durability: RABBITMQ_DURABILITY,
      settings:
        '100 publishes between waits for confirms; prefetch 100, multiple acknowledgements; one node. As used: a channel for the callers, and one with prefetch 50',
    },
    startRabbitMq,
  ),
  other(
    {
      name: 'nats',
      title: 'NATS JetStream, sync always',
      clientOptions: { atomic: 0 },
      stretches: { batch: { producers: 8, consumers: 8 }, single: SINGLE, steady: { producers: 1, consumers: 4 } },
      durability: NATS_DURABILITY,
      settings: 'work-queue stream; 100 publishes in flight a producer; consume with max_messages 100; one node',
    },
    startNats,
  ),
  {
    name: 'nats-atomic',
    title: 'NATS JetStream, sync always, atomic batches',
    client: 'nats',
    clientOptions: { atomic: 1 },
    stretches: { batch: { producers: 8, consumers: 8 } },
    durability: NATS_DURABILITY,
    settings: 'as above, but each 100 messages as one atomic batch (allow_atomic; NATS 2.12 or later)',
    start: startNats,
  },
];
