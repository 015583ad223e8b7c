import { UsageError } from './exit-codes.js';
import { type Profile, profilesPath, readProfiles } from './profiles.js';

/** The broker that a command talks to. */
export interface Connection {
  url: string | string[];
  key: string | undefined;
  /** The origin of the address, for messages. */
  from: string;
}

const DEFAULT_URL = 'http://127.0.0.1:8080';

/**
 * Finds the broker's address and key. `--url` and `--profile` win over the environment, and that
 * over the default profile. A profile gives address and key together: a key never goes to the
 * address of another profile.
 */
export function readConnection(options: { url?: string; profile?: string }, env: NodeJS.ProcessEnv): Connection {
  if (options.url !== undefined && options.profile !== undefined)
    throw new UsageError('Give --url or --profile, but not both: a profile has an address of its own.');
  const key = env['ROWMQ_KEY'] || undefined;
  if (options.url !== undefined) return { url: urls(options.url), key, from: '--url' };
  const named = options.profile ?? (env['ROWMQ_PROFILE'] || undefined);
  if (named !== undefined && (options.profile !== undefined || !env['ROWMQ_URL']))
    return ofProfile(named, profilesPath(env));
  if (env['ROWMQ_URL']) return { url: urls(env['ROWMQ_URL']), key, from: 'ROWMQ_URL' };
  const path = profilesPath(env);
  const { default: standard } = readProfiles(path);
  if (standard !== undefined) return ofProfile(standard, path);
  return { url: DEFAULT_URL, key, from: 'the default' };
}

function ofProfile(name: string, path: string): Connection {
  const { profiles } = readProfiles(path);
  const found: Profile | undefined = Object.hasOwn(profiles, name) ? profiles[name] : undefined;
  if (found === undefined) {
    const known = Object.keys(profiles);
    throw new UsageError(
      `There is no profile '${name}' in ${path}. ${known.length > 0 ? `It has ${known.join(', ')}.` : `Create it: rowmq profile set ${name} --address <url>`}`,
    );
  }
  return { url: found.url, key: found.key, from: `the profile ${name}` };
}

/** Several brokers that stand in for each other are separated by commas. */
function urls(text: string): string[] {
  return text
    .split(',')
    .map((url) => url.trim())
    .filter((url) => url !== '');
}
