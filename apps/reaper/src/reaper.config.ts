import {
  DATABASE_SETTINGS,
  type DatabaseTls,
  databaseTls,
  readSettings,
  SettingsError,
  wholeNumber,
} from '@rowmq/runtime';
import { z } from 'zod';

/** The reaper's settings. */
export interface ReaperConfig {
  databaseUrl: string;
  /** Encryption of connections to the database; undefined: none. */
  databaseTls: DatabaseTls | undefined;
  /** Accept a database version that RowMQ was not tested on. */
  databaseUntested: boolean;
  poolSize: number;
  /** The address and port for probes. Without a port it answers none. */
  host: string;
  port: number | undefined;
  /** Pause between two rounds. */
  intervalSeconds: number;
  /**
   * Settled messages stay readable for at least this time after their enqueue. Then the reaper
   * drops their partition.
   */
  retentionSeconds: number;
  /** The record of a job can be read for this time after its end. */
  jobRetentionSeconds: number;
  /** Time span of one partition of the message table. */
  partitionMinutes: number;
  /**
   * The time for which partitions exist in advance. If the reaper is away for longer, the catch-all
   * partition fills.
   */
  partitionsAheadMinutes: number;
  /** Days for which the actions of administrators stay. */
  auditDays: number;
  stopSeconds: number;
}

/** DI token of {@link ReaperConfig}. */
export const REAPER_CONFIG = Symbol('REAPER_CONFIG');

/** A duty's DDL needs two connections. The heartbeat and the run log must not wait for it. */
const LEAST_CONNECTIONS = 4;

const SHAPE = {
  ...DATABASE_SETTINGS,
  ROWMQ_DATABASE_POOL_SIZE: wholeNumber(1, 1000).default(LEAST_CONNECTIONS),
  ROWMQ_HOST: z.string().default('127.0.0.1'),
  ROWMQ_REAPER_PORT: wholeNumber(0, 65_535).optional(),
  ROWMQ_REAPER_INTERVAL_SECONDS: wholeNumber(1, 3600).default(5),
  // At least a minute: an enqueue that is retried after a lost connection must still find its
  // messages.
  ROWMQ_RETENTION_SECONDS: wholeNumber(60, 31_536_000).default(3600),
  ROWMQ_JOB_RETENTION_SECONDS: wholeNumber(60, 31_536_000).default(604_800),
  ROWMQ_PARTITION_MINUTES: wholeNumber(1, 10_080).default(60),
  ROWMQ_PARTITIONS_AHEAD_MINUTES: wholeNumber(1, 40_320).default(2880),
  ROWMQ_AUDIT_DAYS: wholeNumber(1, 3650).default(90),
  ROWMQ_STOP_SECONDS: wholeNumber(1, 600).default(25),
};

/** More partitions would make every DDL statement and every opening of the table slow. */
const MOST_PARTITIONS_AHEAD = 400;

/** Reads the reaper's settings. Throws `SettingsError` that lists every fault. */
export function readReaperConfig(env: NodeJS.ProcessEnv): ReaperConfig {
  const settings = readSettings(SHAPE, env);
  const [width, ahead] = [settings.ROWMQ_PARTITION_MINUTES, settings.ROWMQ_PARTITIONS_AHEAD_MINUTES];
  if (ahead / width > MOST_PARTITIONS_AHEAD) {
    throw new SettingsError(
      `ROWMQ_PARTITIONS_AHEAD_MINUTES / ROWMQ_PARTITION_MINUTES is ${Math.ceil(ahead / width)} partitions ahead, more than ${MOST_PARTITIONS_AHEAD}. Set a longer ROWMQ_PARTITION_MINUTES or a shorter ROWMQ_PARTITIONS_AHEAD_MINUTES.`,
    );
  }
  return {
    databaseUrl: settings.ROWMQ_DATABASE_URL,
    databaseTls: databaseTls(settings),
    databaseUntested: settings.ROWMQ_DATABASE_UNTESTED === 'allow',
    poolSize: Math.max(settings.ROWMQ_DATABASE_POOL_SIZE, LEAST_CONNECTIONS),
    host: settings.ROWMQ_HOST,
    port: settings.ROWMQ_REAPER_PORT,
    intervalSeconds: settings.ROWMQ_REAPER_INTERVAL_SECONDS,
    retentionSeconds: settings.ROWMQ_RETENTION_SECONDS,
    jobRetentionSeconds: settings.ROWMQ_JOB_RETENTION_SECONDS,
    partitionMinutes: width,
    partitionsAheadMinutes: ahead,
    auditDays: settings.ROWMQ_AUDIT_DAYS,
    stopSeconds: settings.ROWMQ_STOP_SECONDS,
  };
}
