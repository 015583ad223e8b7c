import { resolve } from 'node:path';
import {
  DATABASE_SETTINGS,
  type DatabaseTls,
  databaseTls,
  databaseUrl,
  readSettings,
  SettingsError,
  wholeNumber,
} from '@rowmq/runtime';
import { z } from 'zod';

const SHAPE = {
  ...DATABASE_SETTINGS,
  /** A database of your own; unset: an embedded server is run. */
  ROWMQ_DATABASE_URL: databaseUrl.optional(),
  /** Folder of the embedded server. */
  ROWMQ_DATA_DIR: z.string().default('.rowmq'),
  /**
   * Kind of the embedded server; unset: the kind the data folder holds, else MySQL, else MariaDB.
   */
  ROWMQ_EMBEDDED_SERVER: z.enum(['mysql', 'mariadb']).optional(),
  /** Folder of unpacked servers that several data folders share. */
  ROWMQ_SERVERS_DIR: z.string().optional(),
  /**
   * MiB of memory for the embedded server's buffer pool; unset: a quarter of the machine's, at
   * most 4096.
   */
  ROWMQ_BUFFER_POOL_MB: wholeNumber(64, 1_048_576).optional(),
  /** Address the broker listens on. */
  ROWMQ_HOST: z.string().default('127.0.0.1'),
  /** Port the broker listens on. */
  ROWMQ_PORT: wholeNumber(1, 65_535).default(8080),
  /** Bearer key of the broker; unset: no key, and the broker listens on loopback only. */
  ROWMQ_ADMIN_KEY: z.string().optional(),
  /** Seconds that broker and reaper give themselves to stop. */
  ROWMQ_STOP_SECONDS: wholeNumber(1, 600).default(25),
};

/** The launcher's settings, from its environment. */
export interface LauncherConfig {
  readonly databaseUrl: string | undefined;
  /** How connections to that database are encrypted; undefined: not at all. */
  readonly databaseTls: DatabaseTls | undefined;
  /** Absolute. */
  readonly dataDir: string;
  readonly embeddedServer: 'mysql' | 'mariadb' | undefined;
  readonly serversDir: string | undefined;
  readonly bufferPoolMegabytes: number | undefined;
  readonly host: string;
  readonly port: number;
  readonly adminKey: string | undefined;
  readonly stopSeconds: number;
}

/** Reads the launcher's settings. Throws `SettingsError` that lists every fault. */
export function readLauncherConfig(env: NodeJS.ProcessEnv): LauncherConfig {
  const settings = readSettings(SHAPE, env);
  return {
    databaseUrl: settings.ROWMQ_DATABASE_URL,
    databaseTls: databaseTls(settings),
    dataDir: resolve(settings.ROWMQ_DATA_DIR),
    embeddedServer: settings.ROWMQ_EMBEDDED_SERVER,
    serversDir: settings.ROWMQ_SERVERS_DIR,
    bufferPoolMegabytes: settings.ROWMQ_BUFFER_POOL_MB,
    host: settings.ROWMQ_HOST,
    port: settings.ROWMQ_PORT,
    adminKey: settings.ROWMQ_ADMIN_KEY,
    stopSeconds: settings.ROWMQ_STOP_SECONDS,
  };
}

/**
 * The same for `npm run ha:up`, which runs three MySQL servers of its own: throws `SettingsError`
 * for settings that ask for another database.
 */
export function readHaConfig(env: NodeJS.ProcessEnv): LauncherConfig {
  const config = readLauncherConfig(env);
  const faults = [
    ...(config.databaseUrl === undefined
      ? []
      : ['ROWMQ_DATABASE_URL is set: unset it, or run `npm start` for a broker on that database.']),
    ...(config.embeddedServer === 'mariadb'
      ? ['ROWMQ_EMBEDDED_SERVER is mariadb, which has no Group Replication: unset it.']
      : []),
  ];
  if (faults.length > 0)
    throw new SettingsError(`npm run ha:up runs three MySQL servers of its own.\n  ${faults.join('\n  ')}`);
  return config;
}
