import { z } from 'zod';
import { timestamp } from './schemas.js';

/* The database as an operator sees it. */

const count = z.int().min(0);
const privileged = count.nullable().meta({
  description: "null: the server tells it only to a user with the privilege PROCESS, and the broker's has none",
});

export const databaseAnswer = z.object({
  server: z.string().meta({ example: 'MySQL 9.7.4' }),
  upSeconds: count.meta({ description: 'Time since the start of the server' }),
  connections: count,
  maxConnections: count,
  historyLength: privileged.meta({ description: 'Versions of rows that wait for the purge of InnoDB' }),
  deadlocks: privileged.meta({ description: 'Deadlocks since the start of the server' }),
  longestTransactionSeconds: privileged.meta({ description: 'Age of the oldest open transaction; 0: there is none' }),
  rowLockWaits: count.meta({ description: 'Statements that wait for a row lock now' }),
  thisBroker: z
    .object({
      isUp: z.boolean().meta({ description: 'Whether the last try got an answer' }),
      hasSeveralServers: z.boolean().meta({ description: 'Whether several servers take writes' }),
      failures: z.record(z.string(), count).meta({ description: 'Failed tries since its start, by code', example: {} }),
    })
    .meta({ description: 'The database as the broker that answers has seen it' }),
  brokers: z.array(z.object({ id: z.string(), url: z.string() })).meta({ description: 'Broker processes that run' }),
  tables: z
    .array(z.object({ name: z.string(), bytes: count, rows: count }))
    .meta({ description: 'Estimates of the server, the largest first' }),
  partitions: z
    .array(
      z.object({
        name: z.string(),
        from: timestamp.nullable().meta({ description: 'null: no lower bound' }),
        until: timestamp.nullable().meta({ description: 'null: no upper bound' }),
        rows: count.meta({ description: 'Estimate of the server' }),
      }),
    )
    .meta({ description: 'The partitions of the table with the messages, oldest first' }),
});

export type DatabaseAnswer = z.output<typeof databaseAnswer>;
