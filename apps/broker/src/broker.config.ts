import { isIP, isIPv6 } from 'node:net';
import { networkInterfaces } from 'node:os';
import { LIMITS, type SizeLimits, sizeLimits } from '@rowmq/contract';
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
  /** Largest body and request; beyond it: `message-too-large`. */
  sizes: SizeLimits;
  /** Consumers that may wait for messages; beyond it: `overloaded`. */
  maxLongPolls: number;
  /** The times of a batch, in ms, from which each of these gives way. */
  slowMs: { reaper: number; enqueues: number; dequeues: number };
  /** The length of the server's history list from which the reaper yields; ten times: enqueues. */
  slowHistoryLength: number;
  /** Sessions that wait for locks from which the reaper yields; four and ten times: the others. */
  slowLockWaits: number;
  /** The collector that gets traces by OTLP; undefined: nothing is traced. */
  tracesUrl: string | undefined;
  /** The share of calls to trace if their client traces nothing, in percent. */
  tracesPercent: number;
  /** Queues that have series of their own in the metrics. */
  metricsQueues: number;
  /** Messages a second that each key may send; undefined: no limit. */
  keyMessagesPerSecond: number | undefined;
  /** Dequeues of each key that may wait; undefined: no limit of its own. */
  keyLongPolls: number | undefined;
  host: string;
  port: number;
  /** The address at which other brokers reach this process. */
  peerHost: string;
  /** 0: any free port. */
  peerPort: number;
  /** Whether calls need an API key. If not, the broker listens on loopback only. */
  needsKeys: boolean;
  /** A key of the settings that may do everything. */
  adminKey: string | undefined;
  /** Calls without a valid key from one address within a minute; beyond it: `too-many-attempts`. */
  failedAttempts: number;
  /** Addresses and networks of proxies that say in `X-Forwarded-For` who calls. */
  trustedProxies: string[];
  /** Further values of `Host`, if calls need no key. */
  allowedHosts: string[];
  /** Whether `/metrics`, `/docs` and `/openapi.json` need a key, too. */
  operationsNeedKey: boolean;
  /** The port of these calls; undefined: that of all calls. */
  operationsPort: number | undefined;
  /** How answers of SQS name queues. */
  sqs: {
    account: string;
    /** Undefined: the region that the client signs with. */
    region: string | undefined;
    /** Scheme and host of every QueueUrl; undefined: those that the client used. */
    publicUrl: string | undefined;
    /** Encrypts the secrets of API keys, by which signatures are checked. */
    secretKey: string | undefined;
  };
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
  ROWMQ_MAX_BODY_BYTES: wholeNumber(1, LIMITS.bodyBytesMost).default(LIMITS.bodyBytesDefault),
  ROWMQ_MAX_LONG_POLLS: wholeNumber(1, 100_000).default(10_000),
  ROWMQ_KEY_MESSAGES_PER_SECOND: wholeNumber(1, LIMITS.maxMessagesPerSecond).optional(),
  ROWMQ_KEY_LONG_POLLS: wholeNumber(1, LIMITS.maxLongPolls).optional(),
  ROWMQ_SLOW_YIELD_MS: wholeNumber(10, 600_000).default(500),
  ROWMQ_SLOW_SHED_ENQUEUES_MS: wholeNumber(10, 600_000).default(2000),
  ROWMQ_SLOW_SHED_DEQUEUES_MS: wholeNumber(10, 600_000).default(5000),
  ROWMQ_SLOW_HISTORY_LENGTH: wholeNumber(1000, 1_000_000_000_000).default(5_000_000),
  ROWMQ_SLOW_LOCK_WAITS: wholeNumber(1, 100_000).default(100),
  ROWMQ_TRACES_URL: z
    .url({
      protocol: /^https?$/,
      error: 'must be the address of a collector, such as http://127.0.0.1:4318/v1/traces',
    })
    .optional(),
  ROWMQ_TRACES_PERCENT: wholeNumber(0, 100).default(100),
  ROWMQ_METRICS_QUEUES: wholeNumber(1, 10_000).default(200),
  ROWMQ_HOST: z.string().default('127.0.0.1'),
  ROWMQ_PORT: wholeNumber(0, LAST_PORT).default(8080),
  ROWMQ_PEER_HOST: z.string().optional(),
  ROWMQ_PEER_PORT: wholeNumber(0, LAST_PORT).default(0),
  ROWMQ_ADMIN_KEY: z
    .string()
    .min(16, 'must have at least 16 characters; make one with `openssl rand -hex 24`')
    .regex(/^[\x21-\x7e]*$/, 'must have no spaces and only ASCII characters, or no client can send it in a header')
    .optional(),
  ROWMQ_API_KEYS: z.enum(['required', 'none'], "must be 'required' or 'none'").optional(),
  ROWMQ_MAX_FAILED_ATTEMPTS: wholeNumber(1, 1_000_000).default(100),
  ROWMQ_ALLOWED_HOSTS: z
    .string()
    .regex(
      /^(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?:,(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\]))*$/,
      'must be host names without ports, separated by commas',
    )
    .transform((hosts) => hosts.split(','))
    .optional(),
  ROWMQ_TRUSTED_PROXIES: z
    .string()
    .transform((list) => list.split(','))
    .refine(
      (list) => list.every(isNetwork),
      'must be addresses or networks, such as 10.0.3.17 or 10.0.0.0/8, separated by commas',
    )
    .optional(),
  ROWMQ_OPERATIONS: z.enum(['open', 'key'], "must be 'open' or 'key'").default('open'),
  ROWMQ_OPERATIONS_PORT: wholeNumber(1, LAST_PORT).optional(),
  ROWMQ_SQS_ACCOUNT: z
    .string()
    .regex(/^\d{12}$/, 'must be 12 digits, as accounts of AWS are')
    .default('000000000000'),
  ROWMQ_SQS_REGION: z
    .string()
    .regex(/^[a-z0-9-]{1,32}$/, 'must be the name of a region, such as eu-central-1')
    .optional(),
  ROWMQ_SQS_PUBLIC_URL: z
    .string()
    .regex(/^https?:\/\/[^/?#\s]+$/, 'must be a scheme and a host, such as https://queues.example.org')
    .optional(),
  ROWMQ_SQS_SECRET_KEY: z
    .string()
    .min(32, 'must have at least 32 characters; make one with `openssl rand -hex 32`')
    .optional(),
  ROWMQ_STOP_SECONDS: wholeNumber(1, 600).default(25),
};

/** Reads the broker's settings. Throws `SettingsError` that lists every fault. */
export function readBrokerConfig(env: NodeJS.ProcessEnv): BrokerConfig {
  const settings = readSettings(SHAPE, env);
  const needsKeys = readNeedsKeys(settings);
  if (settings.ROWMQ_OPERATIONS_PORT === settings.ROWMQ_PORT)
    throw new SettingsError('ROWMQ_OPERATIONS_PORT is ROWMQ_PORT. Set it to another port, or unset it.');
  const { ROWMQ_SLOW_YIELD_MS, ROWMQ_SLOW_SHED_ENQUEUES_MS, ROWMQ_SLOW_SHED_DEQUEUES_MS } = settings;
  if (ROWMQ_SLOW_YIELD_MS > ROWMQ_SLOW_SHED_ENQUEUES_MS || ROWMQ_SLOW_SHED_ENQUEUES_MS > ROWMQ_SLOW_SHED_DEQUEUES_MS) {
    throw new SettingsError(
      'The reaper yields first, then enqueues are refused, then dequeues. Set ROWMQ_SLOW_YIELD_MS, ROWMQ_SLOW_SHED_ENQUEUES_MS and ROWMQ_SLOW_SHED_DEQUEUES_MS in ascending order.',
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
    sizes: sizeLimits(settings.ROWMQ_MAX_BODY_BYTES),
    maxLongPolls: settings.ROWMQ_MAX_LONG_POLLS,
    slowMs: {
      reaper: settings.ROWMQ_SLOW_YIELD_MS,
      enqueues: settings.ROWMQ_SLOW_SHED_ENQUEUES_MS,
      dequeues: settings.ROWMQ_SLOW_SHED_DEQUEUES_MS,
    },
    slowHistoryLength: settings.ROWMQ_SLOW_HISTORY_LENGTH,
    slowLockWaits: settings.ROWMQ_SLOW_LOCK_WAITS,
    tracesUrl: settings.ROWMQ_TRACES_URL,
    tracesPercent: settings.ROWMQ_TRACES_PERCENT,
    metricsQueues: settings.ROWMQ_METRICS_QUEUES,
    keyMessagesPerSecond: settings.ROWMQ_KEY_MESSAGES_PER_SECOND,
    keyLongPolls: settings.ROWMQ_KEY_LONG_POLLS,
    host: settings.ROWMQ_HOST,
    port: settings.ROWMQ_PORT,
    peerHost: settings.ROWMQ_PEER_HOST ?? reachableHost(settings.ROWMQ_HOST),
    peerPort,
    needsKeys,
    adminKey: settings.ROWMQ_ADMIN_KEY,
    failedAttempts: settings.ROWMQ_MAX_FAILED_ATTEMPTS,
    trustedProxies: settings.ROWMQ_TRUSTED_PROXIES ?? [],
    allowedHosts: settings.ROWMQ_ALLOWED_HOSTS ?? [],
    operationsNeedKey: settings.ROWMQ_OPERATIONS === 'key',
    operationsPort: settings.ROWMQ_OPERATIONS_PORT,
    sqs: {
      account: settings.ROWMQ_SQS_ACCOUNT,
      region: settings.ROWMQ_SQS_REGION,
      publicUrl: settings.ROWMQ_SQS_PUBLIC_URL,
      secretKey: settings.ROWMQ_SQS_SECRET_KEY,
    },
    stopSeconds: settings.ROWMQ_STOP_SECONDS,
  };
}

interface KeySettings {
  ROWMQ_ADMIN_KEY?: string | undefined;
  ROWMQ_API_KEYS?: 'required' | 'none' | undefined;
  ROWMQ_OPERATIONS: 'open' | 'key';
  ROWMQ_HOST: string;
}

/** Whether calls need an API key. */
function readNeedsKeys(settings: KeySettings): boolean {
  const { ROWMQ_ADMIN_KEY: adminKey, ROWMQ_API_KEYS: setting, ROWMQ_HOST: host } = settings;
  if (setting === 'none' && adminKey !== undefined)
    throw new SettingsError('ROWMQ_API_KEYS is none, but ROWMQ_ADMIN_KEY is set. Unset one of them.');
  const needsKeys = setting === undefined ? adminKey !== undefined : setting === 'required';
  if (!needsKeys && !isLoopback(host))
    throw new SettingsError(
      `ROWMQ_HOST is ${host}, so other machines can reach the broker, but no API key is set. Set ROWMQ_ADMIN_KEY, or listen on 127.0.0.1. Set ROWMQ_API_KEYS=required if the database has keys.`,
    );
  if (!needsKeys && settings.ROWMQ_OPERATIONS === 'key')
    throw new SettingsError(
      'ROWMQ_OPERATIONS is key, but the broker asks for no keys. Set ROWMQ_ADMIN_KEY or ROWMQ_API_KEYS=required, too.',
    );
  return needsKeys;
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
    failedAttempts: share(config.failedAttempts, 1),
    peerPort: config.peerPort === 0 ? 0 : config.peerPort + number - 1,
  };
}

/** Whether this is an address, or a network as an address and the length of its prefix. */
function isNetwork(text: string): boolean {
  const [, address = '', bits] = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(text) ?? [];
  const most = isIPv6(address) ? 128 : 32;
  return isIP(address) !== 0 && (bits === undefined || (Number(bits) > 0 && Number(bits) <= most));
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
