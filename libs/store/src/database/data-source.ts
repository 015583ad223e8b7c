import { databaseHosts, databaseName, databaseParts, type DatabaseTls } from '@rowmq/runtime';
import { format, type Pool } from 'mysql2';
import { DataSource, type DataSourceOptions } from 'typeorm';
import { MysqlDriver } from 'typeorm/driver/mysql/MysqlDriver.js';
import { MIGRATIONS } from '@rowmq/migrations';
import { cannotUse } from './boot-checks.js';
import { ENTITIES } from '../entities/index.js';
import { DatabaseHealth, type HealthLog } from './database-health.js';
import { Primary } from './primary.js';

export interface DatabaseSettings {
  /**
   * `mysql://user:password@host:port/database`; with several hosts, connections go to the one that
   * takes writes.
   */
  url: string;
  /** How its connections are encrypted; undefined: not at all. */
  tls?: DatabaseTls | undefined;
  /** Connections at most. */
  poolSize?: number;
  /** Requests that may wait for a connection; one more is refused with `overloaded`. */
  waitingRequests?: number;
  /** Told when trouble with the database begins and ends, and of another primary. */
  log?: HealthLog;
}

/** A connection that has had nothing to do for so long is closed. */
const IDLE_MS = 20_000;

/**
 * TypeORM's options, how the database is, and which of several hosts its connections go to.
 * `address` is where the database is, for people.
 */
export type StoreOptions = DataSourceOptions & {
  readonly health: DatabaseHealth;
  readonly primary: Primary | undefined;
  readonly address: string;
};

/**
 * TypeORM's options for RowMQ's database. Nothing is synchronized: the schema is the migrations'.
 */
export function dataSourceOptions({
  url,
  tls,
  poolSize = 10,
  waitingRequests = 1000,
  log,
}: DatabaseSettings): StoreOptions {
  const health = new DatabaseHealth(log);
  const primary = Primary.of(url, tls, (host) => health.moved(host));
  return {
    type: 'mysql',
    // User, password and database are the same on every host. Not as a `url`, in which TypeORM does
    // not know IPv6 addresses.
    ...databaseParts(databaseHosts(url)[0] as string),
    ...(tls && { ssl: tls }),
    health,
    primary,
    address: databaseName(url),
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
    extra: {
      queueLimit: waitingRequests,
      // Before the server does it (see SILENT_DEADLINES). mysql2 closes idle connections only where
      // fewer may stay than there may be.
      idleTimeout: IDLE_MS,
      maxIdle: Math.max(poolSize - 1, 1),
      gracefulEnd: true,
      enableKeepAlive: true,
      keepAliveInitialDelay: 10_000,
      queryFormat,
      ...(primary && { stream: primary.open }),
    },
  };
}

/**
 * As mysql2 does it, but a statement without values is sent as it is: mysql2 looks for placeholders
 * in it all the same, which in flights of hundreds of kilobytes was 4 % of a busy broker's time.
 */
function queryFormat(sql: string, values: Values, timezone: Timezone): string {
  return Array.isArray(values) && values.length === 0 ? sql : format(sql, values, false, timezone);
}

type Values = Parameters<typeof format>[1];
type Timezone = Parameters<typeof format>[3];

/**
 * Which of several hosts this data source's connections go to; undefined where there is one host
 * only.
 */
export function primaryOf(dataSource: DataSource): Primary | undefined {
  return (dataSource.options as Partial<StoreOptions>).primary;
}

/** How the database of a data source is, as this process meets it. */
export function healthOf(dataSource: DataSource): DatabaseHealth {
  return (dataSource.options as StoreOptions).health;
}

/** The connections of a data source, for what TypeORM does not do. */
export function poolOf({ driver }: DataSource): Pool {
  if (driver instanceof MysqlDriver) return driver.pool as Pool;
  throw new TypeError('The data source is not one of MySQL.');
}

/** Where a data source's database is, for people: `a:3306,b:3306/d`. */
export function addressOf(dataSource: DataSource): string {
  return (dataSource.options as StoreOptions).address;
}

/**
 * Opens the pool, to the primary if there are several hosts. Throws `StartupError` that says what
 * the database said and what to do; its cause is the database's error, or `NoPrimaryError`.
 */
export async function connectDataSource(options: DataSourceOptions): Promise<DataSource> {
  const dataSource = new DataSource(options);
  try {
    await primaryOf(dataSource)?.find();
    return await dataSource.initialize();
  } catch (error) {
    throw cannotUse(addressOf(dataSource), error);
  }
}

/**
 * Opens a pool of its own, for scripts and tests; applications get theirs from `StoreModule`. Close
 * it with `destroy()`. Throws like {@link connectDataSource}.
 */
export async function openDataSource(settings: DatabaseSettings): Promise<DataSource> {
  return connectDataSource(dataSourceOptions(settings));
}
