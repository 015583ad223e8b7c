import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { reason } from './reason.js';

/** A process cannot start with these settings. The message lists every fault. */
export class SettingsError extends Error {
  override readonly name = 'SettingsError';
}

/** Every setting of every process, so that each process notices a misspelt one. */
export const KNOWN_SETTINGS = [
  'ROWMQ_ADMIN_KEY',
  'ROWMQ_ADMIN_KEY_FILE',
  'ROWMQ_ALLOWED_HOSTS',
  'ROWMQ_API_KEYS',
  'ROWMQ_AUDIT_DAYS',
  'ROWMQ_BATCH_REQUESTS',
  'ROWMQ_BUFFER_POOL_MB',
  'ROWMQ_DATABASE_POOL_SIZE',
  'ROWMQ_DATABASE_TLS',
  'ROWMQ_DATABASE_TLS_CA',
  'ROWMQ_DATABASE_UNTESTED',
  'ROWMQ_DATABASE_URL',
  'ROWMQ_DATABASE_URL_FILE',
  'ROWMQ_DATA_DIR',
  'ROWMQ_EMBEDDED_SERVER',
  'ROWMQ_HOST',
  'ROWMQ_KEY_LONG_POLLS',
  'ROWMQ_KEY_MESSAGES_PER_SECOND',
  'ROWMQ_MAX_BODY_BYTES',
  'ROWMQ_MAX_FAILED_ATTEMPTS',
  'ROWMQ_MAX_LONG_POLLS',
  'ROWMQ_MAX_WAITING_REQUESTS',
  'ROWMQ_METRICS_QUEUES',
  'ROWMQ_OPERATIONS',
  'ROWMQ_OPERATIONS_PORT',
  'ROWMQ_PARTITIONS_AHEAD_MINUTES',
  'ROWMQ_PARTITION_MINUTES',
  'ROWMQ_PEER_HOST',
  'ROWMQ_PEER_PORT',
  'ROWMQ_PORT',
  'ROWMQ_REAPER_INTERVAL_SECONDS',
  'ROWMQ_JOB_RETENTION_SECONDS',
  'ROWMQ_REAPER_PORT',
  'ROWMQ_RETENTION_SECONDS',
  'ROWMQ_SERVERS_DIR',
  'ROWMQ_SLOW_HISTORY_LENGTH',
  'ROWMQ_SLOW_LOCK_WAITS',
  'ROWMQ_SLOW_SHED_DEQUEUES_MS',
  'ROWMQ_SLOW_SHED_ENQUEUES_MS',
  'ROWMQ_SLOW_YIELD_MS',
  'ROWMQ_SQS_ACCOUNT',
  'ROWMQ_SQS_PUBLIC_URL',
  'ROWMQ_SQS_REGION',
  'ROWMQ_SQS_SECRET_KEY',
  'ROWMQ_SQS_SECRET_KEY_FILE',
  'ROWMQ_STOP_SECONDS',
  'ROWMQ_TRACES_PERCENT',
  'ROWMQ_TRACES_URL',
  'ROWMQ_TRUSTED_PROXIES',
  'ROWMQ_WORKERS',
] as const;

/** Settings that are secret. A file may hold each: `<setting>_FILE` names it. */
const SECRETS: ReadonlySet<string> = new Set(['ROWMQ_ADMIN_KEY', 'ROWMQ_DATABASE_URL', 'ROWMQ_SQS_SECRET_KEY']);

/** A whole number from the environment. */
export function wholeNumber(min: number, max: number): z.ZodType<number> {
  const message = `must be a whole number from ${min} to ${max}`;
  return z
    .string()
    .regex(/^\d{1,15}$/, message)
    .transform(Number)
    .refine((value) => value >= min && value <= max, message);
}

/**
 * Reads settings from the environment, and secret ones from files that it names. Empty ones count
 * as absent. Throws {@link SettingsError}.
 */
export function readSettings<T extends z.ZodRawShape>(shape: T, env: NodeJS.ProcessEnv): z.output<z.ZodObject<T>> {
  const faults: string[] = [];
  const given = Object.fromEntries(
    Object.keys(shape).map((name) => {
      const value = env[name] === '' ? undefined : env[name];
      const file = SECRETS.has(name) ? env[`${name}_FILE`] : undefined;
      if (file === undefined || file === '') return [name, value];
      const secret = readSecret(file);
      if (value !== undefined) faults.push(`${name} is set, and so is ${name}_FILE; unset one of them`);
      else if (secret instanceof Error) faults.push(`${name}_FILE ${secret.message}`);
      return [name, secret instanceof Error ? undefined : secret];
    }),
  );
  const result = z.object(shape).safeParse(given);
  // A setting whose file is at fault is not missing as well.
  const others = (result.error?.issues ?? []).filter(
    ({ path: [name] }) => !faults.some((one) => one.startsWith(`${String(name)}_FILE`)),
  );
  faults.push(...others.map((issue) => `${issue.path.join('.')} ${issue.message}`));
  if (result.success && faults.length === 0) return result.data;
  throw new SettingsError(
    `The settings are not valid. Correct these; docs/operations.md lists them all.\n${faults.map((fault) => `  ${fault}`).join('\n')}`,
  );
}

/** The content of a file without the line end that editors leave, or what is wrong with it. */
function readSecret(file: string): string | Error {
  try {
    const secret = readFileSync(file, 'utf8').replace(/\r?\n$/, '');
    return secret === '' ? new Error(`names ${file}, which is empty`) : secret;
  } catch (error) {
    return new Error(`names ${file}, which cannot be read: ${reason(error)}`);
  }
}

/** Settings of the command line. They may be in the environment of other programs, too. */
const OF_COMMAND_LINE = ['ROWMQ_URL', 'ROWMQ_KEY', 'ROWMQ_PROFILE', 'ROWMQ_CONFIG'];

/** Variables with RowMQ's prefix that no process knows. They are probably misspelt. */
export function unknownSettings(env: NodeJS.ProcessEnv): string[] {
  const known = new Set<string>([...KNOWN_SETTINGS, ...OF_COMMAND_LINE]);
  return Object.keys(env).filter((name) => name.startsWith('ROWMQ_') && !known.has(name));
}
