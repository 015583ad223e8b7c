import { databaseHosts, databaseName, databaseParts, type DatabaseTls } from '@rowmq/runtime';
import mysql2, { format, type Pool, type PoolOptions } from 'mysql2';
import { DataSource, type DataSourceOptions } from 'typeorm';
import { MysqlDriver } from 'typeorm/driver/mysql/MysqlDriver.js';
import { MIGRATIONS } from '@rowmq/migrations';
import { cannotUse } from './boot-checks.js';
import { ENTITIES } from '../entities/index.js';
import { DatabaseHealth, type HealthLog } from './database-health.js';
import { Primary } from './primary.js';
import { setUp } from './session-setup.js';

export interface DatabaseSettings {
  /**
   * `mysql://user:password@host:port/database`. With several hosts, connections go to the one that
   * takes writes.
   */
  url: string;
  /** TLS settings. Undefined disables encryption. */
  tls?: DatabaseTls | undefined;
  /** The maximum number of connections. */
  poolSize?: number;
  /**
   * The maximum number of requests that wait for a connection. The next fails with `overloaded`.
   */
  waitingRequests?: number;
  /** Accept a server version that RowMQ was not tested on. */
  untestedAllowed?: boolean;
  /** Receives the start and end of trouble, and changes of the primary. */
  log?: HealthLog;
}

/** A connection closes after this much idle time. */
const IDLE_MS = 20_000;

/**
 * TypeORM's options, the database's health, and the choice among several hosts. `address` names the
 * database in messages.
 */
export type StoreOptions = DataSourceOptions & {
  readonly health: DatabaseHealth;
  readonly primary: Primary;
  readonly address: string;
  readonly untestedAllowed: boolean;
};

/**
 * TypeORM's options for RowMQ's database. TypeORM never synchronizes the schema: the migrations own
 * it.
 */
export function dataSourceOptions({
  url,
  tls,
  poolSize = 10,
  waitingRequests = 1000,
  untestedAllowed = false,
  log,
}: DatabaseSettings): StoreOptions {
  const health = new DatabaseHealth(log);
  const primary = Primary.of(url, tls, (server) => health.moved(server));
  return {
    type: 'mysql',
    driver: DRIVER,
    // All hosts share user, password and database. TypeORM's `url` option does not parse IPv6
    // addresses.
    ...databaseParts(databaseHosts(url)[0] as string),
    ...(tls && { ssl: tls }),
    health,
    primary,
    address: databaseName(url),
    untestedAllowed,
    entities: ENTITIES,
    migrations: [...MIGRATIONS],
    migrationsTableName: 'rowmq_migration',
    // MySQL commits DDL on its own, so a transaction around a migration has no effect.
    migrationsTransactionMode: 'none',
    synchronize: false,
    poolSize,
    connectTimeout: 5000,
    // A transaction's statements travel together. mysql2 escapes every value in them.
    multipleStatements: true,
    supportBigNumbers: true,
    bigNumberStrings: false,
    extra: {
      queueLimit: waitingRequests,
      // The pool closes idle connections before the server does (see SILENT_DEADLINES). mysql2
      // closes them only if `maxIdle` is below the pool's size.
      idleTimeout: IDLE_MS,
      maxIdle: Math.max(poolSize - 1, 1),
      gracefulEnd: true,
      enableKeepAlive: true,
      keepAliveInitialDelay: 10_000,
      queryFormat,
      stream: primary.open,
    },
  };
}

/** mysql2, whose pools give each connection its session settings before its first use. */
const DRIVER = {
  ...mysql2,
  createPool: (options: PoolOptions): Pool => mysql2.createPool(options).on('connection', setUp),
};

/**
 * Formats like mysql2, but sends a statement without values unchanged. mysql2 searches it for
 * placeholders anyway. In batches of hundreds of kilobytes that took 4 % of a busy broker's time.
 */
function queryFormat(sql: string, values: Values, timezone: Timezone): string {
  return Array.isArray(values) && values.length === 0 ? sql : format(sql, values, false, timezone);
}

type Values = Parameters<typeof format>[1];
type Timezone = Parameters<typeof format>[3];

/** The server that this data source's connections go to. */
export function primaryOf(dataSource: DataSource): Primary {
  return (dataSource.options as StoreOptions).primary;
}

/** The health of a data source's database, as this process sees it. */
export function healthOf(dataSource: DataSource): DatabaseHealth {
  return (dataSource.options as StoreOptions).health;
}

/** The connection pool of a data source, for features that TypeORM lacks. */
export function poolOf({ driver }: DataSource): Pool {
  if (driver instanceof MysqlDriver) return driver.pool as Pool;
  throw new TypeError('The data source is not one of MySQL.');
}

/** Whether a data source may use a server version that RowMQ was not tested on. */
export function allowsUntested(dataSource: DataSource): boolean {
  return (dataSource.options as StoreOptions).untestedAllowed;
}

/** The address of a data source's database, for messages: `a:3306,b:3306/d`. */
export function addressOf(dataSource: DataSource): string {
  return (dataSource.options as StoreOptions).address;
}

/**
 * Opens the pool, to the primary if there are several hosts. Throws `StartupError` with the
 * database's reason and advice. Its cause is the database's error or `NoPrimaryError`.
 */
export async function connectDataSource(options: DataSourceOptions): Promise<DataSource> {
  const dataSource = new DataSource(options);
  try {
    await primaryOf(dataSource).find();
    return await dataSource.initialize();
  } catch (error) {
    throw cannotUse(addressOf(dataSource), error);
  }
}

/**
 * Opens a separate pool for scripts and tests. Applications get theirs from `StoreModule`. Close it
 * with `destroy()`. Throws like {@link connectDataSource}.
 */
export async function openDataSource(settings: DatabaseSettings): Promise<DataSource> {
  return connectDataSource(dataSourceOptions(settings));
}
