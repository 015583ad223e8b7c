import { z } from 'zod';

/** A process cannot start with these settings. The message lists every fault. */
export class SettingsError extends Error {
  override readonly name = 'SettingsError';
}

/** Every setting of every process, so that each process notices a misspelt one. */
export const KNOWN_SETTINGS = [
  'ROWMQ_ADMIN_KEY',
  'ROWMQ_BATCH_REQUESTS',
  'ROWMQ_BUFFER_POOL_MB',
  'ROWMQ_DATABASE_POOL_SIZE',
  'ROWMQ_DATABASE_TLS',
  'ROWMQ_DATABASE_TLS_CA',
  'ROWMQ_DATABASE_UNTESTED',
  'ROWMQ_DATABASE_URL',
  'ROWMQ_DATA_DIR',
  'ROWMQ_EMBEDDED_SERVER',
  'ROWMQ_HOST',
  'ROWMQ_MAX_LONG_POLLS',
  'ROWMQ_MAX_WAITING_REQUESTS',
  'ROWMQ_PARTITIONS_AHEAD_MINUTES',
  'ROWMQ_PARTITION_MINUTES',
  'ROWMQ_PEER_HOST',
  'ROWMQ_PEER_PORT',
  'ROWMQ_PORT',
  'ROWMQ_REAPER_INTERVAL_SECONDS',
  'ROWMQ_RETENTION_SECONDS',
  'ROWMQ_SERVERS_DIR',
  'ROWMQ_STOP_SECONDS',
  'ROWMQ_WORKERS',
] as const;

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
 * Reads settings from the environment. Empty ones count as absent. Throws {@link SettingsError}.
 */
export function readSettings<T extends z.ZodRawShape>(shape: T, env: NodeJS.ProcessEnv): z.output<z.ZodObject<T>> {
  const given = Object.fromEntries(Object.keys(shape).map((name) => [name, env[name] === '' ? undefined : env[name]]));
  const result = z.object(shape).safeParse(given);
  if (result.success) return result.data;
  const faults = result.error.issues.map((issue) => `  ${issue.path.join('.')} ${issue.message}`);
  throw new SettingsError(
    `The settings are not valid. Correct these; docs/operations.md lists them all.\n${faults.join('\n')}`,
  );
}

/** Variables with RowMQ's prefix that no process knows. They are probably misspelt. */
export function unknownSettings(env: NodeJS.ProcessEnv): string[] {
  const known = new Set<string>(KNOWN_SETTINGS);
  return Object.keys(env).filter((name) => name.startsWith('ROWMQ_') && !known.has(name));
}
