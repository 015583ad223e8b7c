import { chmodSync, closeSync, fstatSync, mkdirSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { UsageError } from './exit-codes.js';

/* Profiles: brokers' addresses and keys, by name, in a file that only its owner can read. */

export const profileName = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$/, 'must be 1 to 40 of the characters A-Z a-z 0-9 . _ -');
const profile = z.strictObject({ url: z.union([z.string(), z.array(z.string()).min(1)]), key: z.string().optional() });
const profilesFile = z.strictObject({
  default: profileName.optional(),
  profiles: z.record(profileName, profile).default({}),
});

export type Profile = z.output<typeof profile>;
export type Profiles = z.output<typeof profilesFile>;

/** The file of profiles: `ROWMQ_CONFIG`, or else the usual place for configuration. */
export function profilesPath(env: NodeJS.ProcessEnv): string {
  if (env['ROWMQ_CONFIG']) return env['ROWMQ_CONFIG'];
  return join(env['XDG_CONFIG_HOME'] || join(homedir(), '.config'), 'rowmq', 'config.json');
}

/**
 * Reads the profiles; none if there is no file. Refuses a file that other users can read or change,
 * because it holds keys.
 */
export function readProfiles(path: string): Profiles {
  let descriptor: number;
  try {
    descriptor = openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { profiles: {} };
    throw new UsageError(`Cannot read ${path}: ${(error as Error).message}`);
  }
  try {
    refuseOthers(path, descriptor);
    const parsed = profilesFile.safeParse(JSON.parse(readFileSync(descriptor, 'utf8')));
    if (!parsed.success) throw new UsageError(`${path} is not valid: ${z.prettifyError(parsed.error)}`);
    return parsed.data;
  } catch (error) {
    if (error instanceof SyntaxError) throw new UsageError(`${path} is not JSON: ${error.message}`);
    throw error;
  } finally {
    closeSync(descriptor);
  }
}

/** It asks the open file, so that nobody can put another in its place between check and read. */
function refuseOthers(path: string, descriptor: number): void {
  // Windows has no such bits.
  if (process.platform === 'win32') return;
  const { mode, uid } = fstatSync(descriptor);
  if ((mode & 0o077) !== 0)
    throw new UsageError(`Other users can read or change ${path}, which may hold keys. Run: chmod 600 ${path}`);
  const self = process.getuid?.();
  if (self !== 0 && uid !== self && uid !== 0)
    throw new UsageError(`${path} belongs to another user, who can change its addresses and keys. Make it your own.`);
}

/** Writes the profiles to a file that only its owner can read, in one step. */
export function writeProfiles(path: string, profiles: Profiles): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const next = `${path}.${process.pid}`;
  writeFileSync(next, `${JSON.stringify(profiles, null, 2)}\n`, { mode: 0o600 });
  // An old file of this name would have kept its own mode.
  chmodSync(next, 0o600);
  renameSync(next, path);
}
