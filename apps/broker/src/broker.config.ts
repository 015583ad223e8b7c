import { isIP } from 'node:net';
import { networkInterfaces } from 'node:os';
import {
  DATABASE_SETTINGS,
  type DatabaseTls,
  databaseTls,
  readSettings,
  SettingsError,
  wholeNumber,
} from '@rowmq/runtime';
import { z } from 'zod';

/**
 * The broker's settings. Limits are the whole broker's. {@link shareOfWorker} is one worker's
 * share.
 */
export interface BrokerConfig {
  databaseUrl: string;
  /** Encryption of connections to the database; undefined: none. */
  databaseTls: DatabaseTls | undefined;
  /** Accept a database version that RowMQ was not tested on. */
  databaseUntested: boolean;
  /** Processes that listen on one port. */
  workers: number;
  /** Database connections of this broker. */
  poolSize: number;
  /** Requests in one batch, which is one transaction. */
  batchRequests: number;
  /**
   * Requests of one verb that may wait for a batch, and for a connection; beyond it: `overloaded`.
   */
  maxWaitingRequests: number;
  /** Consumers that may wait for messages; beyond it: `overloaded`. */
  maxLongPolls: number;
  host: string;
  port: number;
  /** The address at which other brokers reach this process. */
  peerHost: string;
  /** 0: any free port. */
  peerPort: number;
  /** The API key; undefined: no key is needed, on loopback only. */
  adminKey: string | undefined;
  /** The process ends this long after the beginning of a stop, finished or not. */
  stopSeconds: number;
}

/** DI token of {@link BrokerConfig}. */
export const BROKER_CONFIG = Symbol('BROKER_CONFIG');

const LAST_PORT = 65_535;

const SHAPE = {
  ...DATABASE_SETTINGS,
  ROWMQ_WORKERS: wholeNumber(1, 64).default(1),
  ROWMQ_DATABASE_POOL_SIZE: wholeNumber(1, 1000).default(16),
  ROWMQ_BATCH_REQUESTS: wholeNumber(1, 1000).default(1000),
  ROWMQ_MAX_WAITING_REQUESTS: wholeNumber(1, 100_000).default(5000),
  ROWMQ_MAX_LONG_POLLS: wholeNumber(1, 100_000).default(10_000),
  ROWMQ_HOST: z.string().default('127.0.0.1'),
  ROWMQ_PORT: wholeNumber(0, LAST_PORT).default(8080),
  ROWMQ_PEER_HOST: z.string().optional(),
  ROWMQ_PEER_PORT: wholeNumber(0, LAST_PORT).default(0),
  ROWMQ_ADMIN_KEY: z
    .string()
    .min(16, 'must have at least 16 characters; make one with `openssl rand -hex 24`')
    .regex(/^[\x21-\x7e]*$/, 'must have no spaces and only ASCII characters, or no client can send it in a header')
    .optional(),
  ROWMQ_STOP_SECONDS: wholeNumber(1, 600).default(25),
};

/** Reads the broker's settings. Throws `SettingsError` that lists every fault. */
export function readBrokerConfig(env: NodeJS.ProcessEnv): BrokerConfig {
  const settings = readSettings(SHAPE, env);
  if (settings.ROWMQ_ADMIN_KEY === undefined && !isLoopback(settings.ROWMQ_HOST)) {
    throw new SettingsError(
      `ROWMQ_HOST is ${settings.ROWMQ_HOST}, so other machines can reach the broker, but no API key is set. Set ROWMQ_ADMIN_KEY, or listen on 127.0.0.1.`,
    );
  }
  const { ROWMQ_WORKERS: workers, ROWMQ_PEER_PORT: peerPort } = settings;
  if (peerPort + workers - 1 > LAST_PORT) {
    throw new SettingsError(
      `ROWMQ_PEER_PORT is ${peerPort}, and each of the ${workers} workers needs the next port. Set it to ${LAST_PORT - workers + 1} or less, or to 0.`,
    );
  }
  return {
    databaseUrl: settings.ROWMQ_DATABASE_URL,
    databaseTls: databaseTls(settings),
    databaseUntested: settings.ROWMQ_DATABASE_UNTESTED === 'allow',
    workers,
    poolSize: settings.ROWMQ_DATABASE_POOL_SIZE,
    batchRequests: settings.ROWMQ_BATCH_REQUESTS,
    maxWaitingRequests: settings.ROWMQ_MAX_WAITING_REQUESTS,
    maxLongPolls: settings.ROWMQ_MAX_LONG_POLLS,
    host: settings.ROWMQ_HOST,
    port: settings.ROWMQ_PORT,
    peerHost: settings.ROWMQ_PEER_HOST ?? reachableHost(settings.ROWMQ_HOST),
    peerPort,
    adminKey: settings.ROWMQ_ADMIN_KEY,
    stopSeconds: settings.ROWMQ_STOP_SECONDS,
  };
}

/** The fewest connections that give each verb one. */
const LEAST_CONNECTIONS = 4;

/** The settings of one of several workers. The first has number 1. */
export function shareOfWorker(config: BrokerConfig, number: number): BrokerConfig {
  const share = (whole: number, least: number): number => Math.max(least, Math.floor(whole / config.workers));
  return {
    ...config,
    poolSize: share(config.poolSize, LEAST_CONNECTIONS),
    maxWaitingRequests: share(config.maxWaitingRequests, 1),
    maxLongPolls: share(config.maxLongPolls, 1),
    peerPort: config.peerPort === 0 ? 0 : config.peerPort + number - 1,
  };
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

/**
 * An address at which other machines reach a broker that listens on `host`. All addresses mean this
 * machine's first one that is not loopback, IPv4 before IPv6.
 */
export function reachableHost(host: string, interfaces = networkInterfaces()): string {
  if (host !== '0.0.0.0' && host !== '::') return host;
  const outside = Object.values(interfaces)
    .flatMap((addresses) => addresses ?? [])
    // A link-local IPv6 address needs the name of an interface of the machine that uses it.
    .filter(({ internal, address }) => !internal && !address.startsWith('fe80:'));
  return (outside.find(({ family }) => family === 'IPv4') ?? outside[0])?.address ?? '127.0.0.1';
}
