import { z } from 'zod';

const SHAPE =
  'mysql://user:password@host:port/database, or with several hosts mysql://user:password@host1:port,host2:port/database; ' +
  'percent-encode every character of user and password that is neither a letter nor a digit';
/** The most servers of a MySQL group. */
const MOST_HOSTS = 9;

/**
 * Splits a database URL into one URL for each host: `mysql://u:p@a:3306,b:3306/d` becomes
 * `mysql://u:p@a:3306/d` and `mysql://u:p@b:3306/d`.
 * Throws TypeError with the fault, without the password.
 */
export function databaseHosts(url: string): string[] {
  if (/^(?:mysql|mariadb):.*[?#]/.test(url)) {
    throw new TypeError(
      'takes no parameters, so it may have no ? or #: for encryption set ROWMQ_DATABASE_TLS; in a password write them as %3F and %23',
    );
  }
  if (!canDecode(url)) throw new TypeError('has a % that begins no escape such as %40; a % itself is written %25');
  // A password may have commas as they are. Other special characters are percent-encoded.
  const [, scheme, user = '', hosts, database] =
    /^((?:mysql|mariadb):\/\/)([^/?#]*@)?([^/?#@]*)(\/[^/?#].*)$/.exec(url) ?? [];
  if (scheme === undefined || hosts === undefined || database === undefined)
    throw new TypeError(`must look like ${SHAPE}`);
  // With a / in the password, a part of it would look like the host, and be named in a log.
  if (database.includes('@'))
    throw new TypeError('has an @ behind its first /: in the user and the password, write a / as %2F and an @ as %40');
  const names = hosts.split(',');
  if (names.length > MOST_HOSTS) throw new TypeError(`names ${names.length} hosts; at most ${MOST_HOSTS} are possible`);
  const seen = new Set<string>();
  return names.map((name) => {
    const single = `${scheme}${user}${name}${database}`;
    if (name === '' || !URL.canParse(single))
      throw new TypeError(`has an invalid host, '${name}'; it must look like ${SHAPE}`);
    const { host, port } = new URL(single);
    const key = port === '' ? `${host}:3306` : host;
    if (seen.has(key)) throw new TypeError(`names the host ${name} twice`);
    seen.add(key);
    return single;
  });
}

/** The decoded parts of a URL with one host. An IPv6 address has no brackets. */
export function databaseParts(url: string): {
  host: string;
  port: number;
  username: string;
  password: string;
  database: string;
} {
  const { hostname, port, username, password, pathname } = new URL(url);
  return {
    host: hostname.replace(/^\[|\]$/g, ''),
    port: Number(port || 3306),
    username: decodeURIComponent(username),
    password: decodeURIComponent(password),
    database: decodeURIComponent(pathname.slice(1)),
  };
}

/** A database's address for logs, without user and password: `a:3306,b:3306/d`. */
export function databaseName(url: string): string {
  const hosts = databaseHosts(url).map((single) => new URL(single));
  return hosts.map(({ host }) => host).join(',') + (hosts[0]?.pathname ?? '');
}

/** The schema of the database's URL. */
export const databaseUrl = z
  .string({
    error: `is needed: ${SHAPE}; or run \`npm start\`, which starts a database of its own`,
  })
  .superRefine((value, context) => {
    try {
      databaseHosts(value);
    } catch (error) {
      context.addIssue({ code: 'custom', message: (error as TypeError).message });
    }
  });

function canDecode(text: string): boolean {
  try {
    decodeURIComponent(text);
    return true;
  } catch {
    return false;
  }
}
