import { computed, signal } from '@preact/signals';
import type { KeyScope, Problem, SessionAnswer } from '@rowmq/contract';
import { reaches } from '@rowmq/contract/reaches';

/** A call may take this long; a long poll may wait 20 seconds. */
const CALL_MS = 30_000;

/** A refusal, in the words of the broker. Status 0: no broker answered. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly problem?: Problem,
  ) {
    super(message);
  }

  /** The broker has decided: it answers the same until somebody changes something. */
  get isRefusal(): boolean {
    return this.status >= 400 && this.status < 500 && !PASSING.has(this.status);
  }
}

/** A session that is read again, a connection that ends, and a limit. */
const PASSING = new Set([401, 408, 429]);

interface Trouble {
  readonly text: string;
  readonly advice: string;
}

const AWAY: Trouble = {
  text: 'The broker does not answer.',
  advice: 'See whether it runs, and whether this machine reaches it.',
};

export const session = signal<SessionAnswer | undefined>(undefined);
/** Why nothing comes at the moment, and what to do about it; undefined: the broker answers. */
export const trouble = signal<Trouble | undefined>(undefined);
/** The session ended by itself: it expired, or its key did. */
export const hasEnded = signal(false);
/** Goes up when something was changed here, so that pages read again. */
export const changes = signal(0);

const rights = computed(() => session.value?.rights ?? undefined);

/** Whether the key may make calls of this kind. */
export function may(scope: KeyScope): boolean {
  const scopes = rights.value?.scopes ?? [];
  return scopes.includes(scope) || (scope === 'read' && scopes.includes('admin'));
}

/** Whether the key reaches every queue, which some pages need. */
export function mayReachAll(): boolean {
  return rights.value?.patterns.length === 0;
}

export function mayReach(name: string): boolean {
  return rights.value !== undefined && reaches(rights.value.patterns, name);
}

/**
 * Makes one call. The paths are relative, so the dashboard also works below a path of a balancer.
 */
async function call<T>(
  method: string,
  path: string,
  body?: unknown,
  { stop, headers }: { stop?: AbortSignal; headers?: Record<string, string> } = {},
): Promise<T> {
  const timeout = AbortSignal.timeout(CALL_MS);
  let response: Response;
  let text: string;
  try {
    response = await fetch(path, {
      method,
      headers: {
        accept: 'application/json',
        'x-rowmq-dashboard': '1',
        ...(body !== undefined && { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      cache: 'no-store',
      credentials: 'same-origin',
      redirect: 'error',
      signal: stop === undefined ? timeout : AbortSignal.any([timeout, stop]),
    });
    text = await response.text();
  } catch (error) {
    if (stop?.aborted === true) throw error;
    trouble.value = AWAY;
    throw new ApiError(0, `${AWAY.text} ${AWAY.advice}`);
  }
  const answer = parse(text);
  if (response.ok) {
    trouble.value = undefined;
    return answer as T;
  }
  const problem = answer as Problem | undefined;
  const error = new ApiError(response.status, problem?.detail ?? `The answer was ${response.status}.`, problem);
  if (response.status === 401 && !path.startsWith('dashboard/')) {
    const wasLoggedIn = rights.value !== undefined;
    await readSession().catch(() => undefined);
    if (wasLoggedIn && rights.value === undefined) hasEnded.value = true;
  }
  trouble.value = troubleIn(error);
  throw error;
}

function troubleIn({ status, problem }: ApiError): Trouble | undefined {
  if (problem?.code === 'database-unavailable')
    return {
      text: 'The broker does not reach its database.',
      advice: 'It goes on by itself once the database is back. The command rowmq doctor says what is wrong with it.',
    };
  if (problem?.code === 'overloaded')
    return { text: 'The broker is overloaded, or about to stop.', advice: 'If this lasts, start another broker.' };
  return status === 502 || status === 503 || status === 504 ? AWAY : undefined;
}

function parse(text: string): unknown {
  if (text === '') return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

export const get = async <T>(path: string, stop?: AbortSignal): Promise<T> =>
  call<T>('GET', path, undefined, stop === undefined ? {} : { stop });

/** Changes something, and lets the pages read again. */
export async function change<T>(
  method: 'POST' | 'PUT' | 'DELETE',
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<T> {
  const answer = await call<T>(method, path, body, { headers });
  changes.value += 1;
  return answer;
}

/** A repeat of the same content after a lost answer has the same key, and is stored once. */
export class RepeatKey {
  private content = '';
  private key = '';

  /** The header for this content. */
  headersFor(content: unknown): Record<string, string> {
    const text = JSON.stringify(content);
    if (text !== this.content) {
      this.content = text;
      const bytes = crypto.getRandomValues(new Uint8Array(16));
      this.key = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
    }
    return { 'idempotency-key': this.key };
  }
}

export async function readSession(): Promise<void> {
  session.value = await get<SessionAnswer>('dashboard/session');
}

export async function logIn(key: string): Promise<void> {
  session.value = await call<SessionAnswer>('POST', 'dashboard/session', { key });
  hasEnded.value = false;
}

export async function logOut(): Promise<void> {
  await call('DELETE', 'dashboard/session');
  await readSession();
}

/** The path of an admin call. */
export function admin(path: readonly string[], query: Record<string, string | number | undefined> = {}): string {
  const wanted = Object.entries(query).filter(([, value]) => value !== undefined && value !== '');
  const search = new URLSearchParams(wanted.map(([name, value]) => [name, String(value)])).toString();
  return `v1/admin/${path.map(encodeURIComponent).join('/')}${search === '' ? '' : `?${search}`}`;
}
