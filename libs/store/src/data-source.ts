import { format } from 'mysql2';
import { DataSource, type DataSourceOptions } from 'typeorm';
import { MIGRATIONS } from '../../../migrations/index.js';
import { ENTITIES } from './entities/index.js';

export interface DatabaseSettings {
  /** `mysql://user:password@host:port/database` */
  url: string;
  /** Connections at most. */
  poolSize?: number;
  /** Requests that may wait for a connection; one more is refused with `overloaded`. */
  waitingRequests?: number;
}

/** TypeORM's options for RowMQ's database. Nothing is synchronized: the schema is the migrations'. */
export function dataSourceOptions({ url, poolSize = 10, waitingRequests = 1000 }: DatabaseSettings): DataSourceOptions {
  return {
    type: 'mysql',
    url,
    entities: ENTITIES,
    migrations: MIGRATIONS,
    migrationsTableName: 'rowmq_migration',
    // MySQL commits DDL by itself: a transaction around a migration would only pretend.
    migrationsTransactionMode: 'none',
    synchronize: false,
    poolSize,
    connectTimeout: 5000,
    // A transaction's statements travel together; every value in them is escaped.
    multipleStatements: true,
    supportBigNumbers: true,
    bigNumberStrings: false,
    extra: { queueLimit: waitingRequests, enableKeepAlive: true, keepAliveInitialDelay: 10_000, queryFormat },
  };
}

/** As mysql2 does it, but a statement without values is sent as it is: mysql2 looks for placeholders in it all the same, which in flights of hundreds of kilobytes was 4 % of a busy broker's time. */
function queryFormat(sql: string, values: Values, timezone: Timezone): string {
  return Array.isArray(values) && values.length === 0 ? sql : format(sql, values, false, timezone);
}

type Values = Parameters<typeof format>[1];
type Timezone = Parameters<typeof format>[3];

/** Opens a pool of its own, for scripts and tests; applications get theirs from `StoreModule`. Close it with `destroy()`. */
export async function openDataSource(settings: DatabaseSettings): Promise<DataSource> {
  return new DataSource(dataSourceOptions(settings)).initialize();
}
