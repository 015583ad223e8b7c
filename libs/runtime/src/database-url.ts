import { z } from 'zod';

const SHAPE =
  'mysql://user:password@host:port/database, or with several hosts mysql://user:password@host1:port,host2:port/database; ' +
  'percent-encode what is neither letter nor digit in user and password';
/** As many servers as MySQL lets into a group. */
const MOST_HOSTS = 9;

/**
 * The database's URL with each of its hosts alone, in their order: `mysql://u:p@a:3306,b:3306/d` is `mysql://u:p@a:3306/d` and `mysql://u:p@b:3306/d`.
 * Throws TypeError that says what is wrong, without the password.
 */
export function databaseHosts(url: string): string[] {
  if (/^(?:mysql|mariadb):.*[?#]/.test(url)) {
    throw new TypeError(
      'takes no parameters, so it may have no ? or #: for encryption set ROWMQ_DATABASE_TLS; in a password write them as %3F and %23',
    );
  }
  if (!canDecode(url)) throw new TypeError('has a % that begins no escape such as %40; a % itself is written %25');
  // A password may have commas, and is percent-encoded where it has more than that.
  const [, scheme, user = '', hosts, database] =
    /^((?:mysql|mariadb):\/\/)([^/?#]*@)?([^/?#@]*)(\/[^/?#].*)$/.exec(url) ?? [];
  if (scheme === undefined || hosts === undefined || database === undefined)
    throw new TypeError(`must look like ${SHAPE}`);
  const names = hosts.split(',');
  if (names.length > MOST_HOSTS) throw new TypeError(`names ${names.length} hosts; at most ${MOST_HOSTS} can be`);
  const seen = new Set<string>();
  return names.map((name) => {
    const single = `${scheme}${user}${name}${database}`;
    if (name === '' || !URL.canParse(single))
      throw new TypeError(`has a host that is none: '${name}'; it must look like ${SHAPE}`);
    const { host, port } = new URL(single);
    const key = port === '' ? `${host}:3306` : host;
    if (seen.has(key)) throw new TypeError(`names the host ${name} twice`);
    seen.add(key);
    return single;
  });
}

/** What the URL of one host says, decoded; the host is without the brackets of an IPv6 address. */
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

/** A database's address as people may see it, without user and password: `a:3306,b:3306/d`. */
export function databaseName(url: string): string {
  const hosts = databaseHosts(url).map((single) => new URL(single));
  return hosts.map(({ host }) => host).join(',') + (hosts[0]?.pathname ?? '');
}

/** The database's address, which every process that needs one takes from the same setting. */
export const databaseUrl = z
  .string({
    error: `is needed: ${SHAPE}; or run \`npm start\`, which brings a database of its own`,
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
