import { resolve } from 'node:path';
import { readBrokerConfig } from '@rowmq/broker/config';
import { readReaperConfig } from '@rowmq/reaper/config';
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
  /** Accept a version of that database that RowMQ was not tested on. */
  readonly databaseUntested: boolean;
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

/** Stands for the database that the launcher will start. */
const NOT_STARTED_YET = 'mysql://rowmq@127.0.0.1/rowmq';

/**
 * Reads the settings of the launcher, and checks those of the processes that it starts, before it
 * unpacks a server. Throws `SettingsError` that lists every fault of all of them.
 */
export function readLauncherConfig(env: NodeJS.ProcessEnv): LauncherConfig {
  const ofApps = {
    ...env,
    ROWMQ_DATABASE_URL: env['ROWMQ_DATABASE_URL'] || (env['ROWMQ_DATABASE_URL_FILE'] ? '' : NOT_STARTED_YET),
  };
  const errors = [() => readOwnConfig(env), () => readBrokerConfig(ofApps), () => readReaperConfig(ofApps)].flatMap(
    (read) => {
      try {
        read();
        return [];
      } catch (error) {
        if (!(error instanceof SettingsError)) throw error;
        return [error.message];
      }
    },
  );
  // Several processes share a setting, and each names its fault.
  const lines = new Set(errors.flatMap((message) => message.split('\n')));
  if (lines.size > 0) throw new SettingsError([...lines].join('\n'));
  return readOwnConfig(env);
}

function readOwnConfig(env: NodeJS.ProcessEnv): LauncherConfig {
  const settings = readSettings(SHAPE, env);
  return {
    databaseUrl: settings.ROWMQ_DATABASE_URL,
    databaseTls: databaseTls(settings),
    databaseUntested: settings.ROWMQ_DATABASE_UNTESTED === 'allow',
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
 * The same for `npm run ha:up`, which runs three MySQL servers of its own. It throws
 * `SettingsError` also for settings that ask for another database, or for a port that two processes
 * cannot share.
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
  const taken = [
    // All processes get the same environment. A port 0 lets the system choose one for each.
    ...ONE_PORT.filter((name) => env[name] && Number(env[name]) !== 0).map(
      (name) => `${name} is ${env[name]}, which only one of them could have: unset it.`,
    ),
    ...(config.port < LAST_PORT
      ? []
      : [
          `ROWMQ_PORT is ${config.port}, and the second broker needs the next port: set it to ${LAST_PORT - 1} or lower.`,
        ]),
  ];
  if (taken.length > 0)
    throw new SettingsError(`npm run ha:up runs two brokers and two reapers.\n  ${taken.join('\n  ')}`);
  return config;
}

const LAST_PORT = 65_535;
const ONE_PORT = ['ROWMQ_OPERATIONS_PORT', 'ROWMQ_PEER_PORT', 'ROWMQ_REAPER_PORT'];
