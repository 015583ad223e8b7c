import { randomBytes } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { RowmqError, SESSION_HEADER } from '@rowmq/contract';
import { digestOf, SessionRepository, type StoredSession } from '@rowmq/store';
import type { Caller } from '../http/caller.js';
import { KnownKeys } from './known-keys.js';

/** A session ends after this time, whatever happens. */
export const SESSION_SECONDS = 12 * 3600;
const COOKIE = 'rowmq_session';
const COOKIE_VALUE = new RegExp(`(?:^|;\\s*)${COOKIE}=([A-Za-z0-9_-]{43})(?:;|$)`);
const ID_BYTES = 32;
/** A logout on one broker takes effect on the others within this time. */
const FRESH_MS = 1000;
/** While the database does not answer, sessions stay valid for this long, as keys do. */
const OUTAGE_MS = 30_000;
/** Sessions that are remembered. The oldest goes first. */
const REMEMBERED = 10_000;

/** The part of a request that the check of a session reads. */
export interface SessionRequest {
  readonly method: string;
  readonly headers: Record<string, string | string[] | undefined>;
}

/**
 * The logins to the dashboard. The cookie is random, and the database has its digest and that of
 * the key's secret. So any broker serves a session, a restart ends none, and a session ends with
 * its key. Nobody gets at a key, or into a session, with a copy of the table.
 */
@Injectable()
export class KnownSessions {
  private readonly known = new Map<string, { session: StoredSession; readAt: number }>();

  constructor(
    private readonly sessions: SessionRepository,
    private readonly keys: KnownKeys,
  ) {}

  /**
   * Begins a session with this key. Returns the value of `Set-Cookie`. Rejects with `unauthorized`.
   */
  async begin(secret: string, isSecure: boolean): Promise<{ caller: Caller; cookie: string }> {
    const { caller, keyId, digest } = await this.keys.identify(secret);
    const id = randomBytes(ID_BYTES).toString('base64url');
    await this.sessions.add({ digest: digestOf(id).toString(), keyId, keyDigest: digest.toString() }, SESSION_SECONDS);
    return { caller, cookie: setCookie(id, SESSION_SECONDS, isSecure) };
  }

  /**
   * Ends the session of a request. Returns the value of `Set-Cookie` that removes the cookie, and
   * whether the cookie was a guess.
   */
  async end(request: SessionRequest, isSecure: boolean): Promise<{ cookie: string; isGuess: boolean }> {
    const id = idIn(request);
    let isGuess = false;
    if (id !== undefined) {
      const digest = digestOf(id).toString();
      this.known.delete(digest);
      isGuess = !(await this.sessions.remove(digest));
    }
    return { cookie: setCookie('', 0, isSecure), isGuess };
  }

  /** Whether this process has lately found the session of a request. */
  hasFound(request: SessionRequest): boolean {
    const id = idIn(request);
    return id !== undefined && this.known.has(digestOf(id).toString());
  }

  /**
   * Finds the caller whose session a request carries. Throws `unauthorized` if the session has
   * ended, and `forbidden` for a request that another page may have sent.
   */
  async find(request: SessionRequest): Promise<Caller> {
    refuseForeign(request);
    const id = idIn(request);
    if (id === undefined) throw ended();
    const { keyId, keyDigest } = await this.read(digestOf(id).toString());
    return this.keys.findByDigest(keyId, Buffer.from(keyDigest, 'latin1'));
  }

  private async read(digest: string): Promise<StoredSession> {
    const last = this.known.get(digest);
    const readAt = performance.now();
    if (last !== undefined && readAt - last.readAt < FRESH_MS) return last.session;
    try {
      const session = await this.sessions.find(digest);
      this.known.delete(digest);
      if (session === undefined) throw ended();
      this.known.set(digest, { session, readAt });
      const [oldest] = this.known.keys();
      if (this.known.size > REMEMBERED) this.known.delete(oldest as string);
      return session;
    } catch (error) {
      const isRefusal = error instanceof RowmqError && error.code === 'unauthorized';
      if (isRefusal || last === undefined || readAt - last.readAt > OUTAGE_MS) throw error;
      return last.session;
    }
  }
}

/** Whether a request carries a session and no key. */
export function hasSession({ headers }: SessionRequest): boolean {
  return headers['authorization'] === undefined && headers['cookie']?.includes(`${COOKIE}=`) === true;
}

/**
 * Refuses a request that a page of another origin may have sent. Such a page cannot add the header
 * without the broker's permission, which no broker gives. Browsers also say where a request came
 * from.
 */
export function refuseForeign({ method, headers }: SessionRequest): void {
  const { host, origin, 'sec-fetch-site': site } = headers;
  const isOwn =
    headers[SESSION_HEADER] !== undefined &&
    (site === undefined ? isSameHost(origin, host, method) : site === 'same-origin');
  if (isOwn) return;
  throw new RowmqError(
    'forbidden',
    `The dashboard's session counts only for requests of the dashboard itself, with ${SESSION_HEADER}. Programs send \`Authorization: Bearer <key>\`.`,
  );
}

/** A browser that does not say `Sec-Fetch-Site` sends `Origin` at least with a change. */
function isSameHost(
  origin: string | string[] | undefined,
  host: string | string[] | undefined,
  method: string,
): boolean {
  if (origin === undefined) return method === 'GET' || method === 'HEAD';
  return typeof origin === 'string' && URL.canParse(origin) && new URL(origin).host === host;
}

function idIn({ headers }: SessionRequest): string | undefined {
  const { cookie } = headers;
  return typeof cookie === 'string' ? COOKIE_VALUE.exec(cookie)?.[1] : undefined;
}

function setCookie(value: string, seconds: number, isSecure: boolean): string {
  return `${COOKIE}=${value}; Path=/; Max-Age=${seconds}; HttpOnly; SameSite=Strict${isSecure ? '; Secure' : ''}`;
}

/** The error of a request whose session has ended, or never began. */
export function ended(): RowmqError {
  return new RowmqError('unauthorized', 'The session has ended. Log in to the dashboard again.');
}
