import {
  DATABASE_SETTINGS,
  type DatabaseTls,
  databaseTls,
  readSettings,
  SettingsError,
  wholeNumber,
} from '@rowmq/runtime';

/** The reaper's settings. */
export interface ReaperConfig {
  databaseUrl: string;
  /** How connections to the database are encrypted; undefined: not at all. */
  databaseTls: DatabaseTls | undefined;
  poolSize: number;
  /** Pause between two rounds. */
  intervalSeconds: number;
  /**
   * How long after its enqueue a settled message can still be looked at, at least; its partition
   * goes after that.
   */
  retentionSeconds: number;
  /** Span of one partition of the message table. */
  partitionMinutes: number;
  /**
   * How far ahead partitions are made; a reaper that is away for longer lets the catch-all
   * partition fill.
   */
  partitionsAheadMinutes: number;
  stopSeconds: number;
}

/** DI token of {@link ReaperConfig}. */
export const REAPER_CONFIG = Symbol('REAPER_CONFIG');

/**
 * A duty's DDL works with two, and the heartbeat and the log must not wait for it: fewer are not
 * taken for an answer.
 */
const LEAST_CONNECTIONS = 4;

const SHAPE = {
  ...DATABASE_SETTINGS,
  ROWMQ_DATABASE_POOL_SIZE: wholeNumber(1, 1000).default(LEAST_CONNECTIONS),
  ROWMQ_REAPER_INTERVAL_SECONDS: wholeNumber(1, 3600).default(5),
  // A minute at least: for so long an enqueue that is repeated after a lost connection must find
  // what it stored.
  ROWMQ_RETENTION_SECONDS: wholeNumber(60, 31_536_000).default(3600),
  ROWMQ_PARTITION_MINUTES: wholeNumber(1, 10_080).default(60),
  ROWMQ_PARTITIONS_AHEAD_MINUTES: wholeNumber(1, 40_320).default(2880),
  ROWMQ_STOP_SECONDS: wholeNumber(1, 600).default(25),
};

/** More would make every DDL statement and every opening of the table slow. */
const MOST_PARTITIONS_AHEAD = 400;

/** Reads the reaper's settings. Throws `SettingsError` that lists every fault. */
export function readReaperConfig(env: NodeJS.ProcessEnv): ReaperConfig {
  const settings = readSettings(SHAPE, env);
  const [width, ahead] = [settings.ROWMQ_PARTITION_MINUTES, settings.ROWMQ_PARTITIONS_AHEAD_MINUTES];
  if (ahead / width > MOST_PARTITIONS_AHEAD) {
    throw new SettingsError(
      `ROWMQ_PARTITIONS_AHEAD_MINUTES / ROWMQ_PARTITION_MINUTES is ${Math.ceil(ahead / width)} partitions ahead, more than ${MOST_PARTITIONS_AHEAD}; make them wider or fewer.`,
    );
  }
  return {
    databaseUrl: settings.ROWMQ_DATABASE_URL,
    databaseTls: databaseTls(settings),
    poolSize: Math.max(settings.ROWMQ_DATABASE_POOL_SIZE, LEAST_CONNECTIONS),
    intervalSeconds: settings.ROWMQ_REAPER_INTERVAL_SECONDS,
    retentionSeconds: settings.ROWMQ_RETENTION_SECONDS,
    partitionMinutes: width,
    partitionsAheadMinutes: ahead,
    stopSeconds: settings.ROWMQ_STOP_SECONDS,
  };
}
