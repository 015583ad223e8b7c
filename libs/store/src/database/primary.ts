import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { databaseHosts, databaseParts, type DatabaseTls, reason } from '@rowmq/runtime';
import { createConnection, type RowDataPacket } from 'mysql2/promise';
import { isRetryable, ReadOnlyServerError } from './database-errors.js';

/** The deadline for a probe's connect and login, and again for its statement. */
const PROBE_DEADLINE_MS = 2000;
/**
 * Once one host takes writes, the others have this long to claim the same. That detects two
 * primaries without waiting for a host that hangs.
 */
const GRACE_MS = 500;
/** The pause after a failed search. All callers in that time share its result. */
const PAUSE_MS = { min: 100, max: 200 };

/**
 * Probes a server. Resolves if the server at this URL takes writes, and throws the reason if not.
 */
export type Probe = (url: string) => Promise<void>;

/** The states of {@link Primary}, whose comment has the table. */
type State =
  | { readonly name: 'known' }
  | { readonly name: 'doubted' }
  | { readonly name: 'disputed' | 'none'; readonly error: NoPrimaryError };

const KNOWN: State = { name: 'known' };
const DOUBTED: State = { name: 'doubted' };

/** No host takes writes now. Retryable if the failure of at least one host is. */
export class NoPrimaryError extends Error {
  override readonly name = 'NoPrimaryError';

  readonly driverError: unknown;

  /** @param reasons One for each host. */
  constructor(
    message: string,
    readonly reasons: readonly unknown[],
  ) {
    super(message);
    // A password that every host refuses stays wrong.
    this.driverError = reasons.find((error) => isRetryable(error)) ?? reasons[0];
  }
}

/**
 * Tracks which of several replicated hosts is the primary. New connections go to it. When the
 * primary changes, connections to the old one close, so that no request reads from it or waits for
 * it.
 *
 * A search starts on a failure, not periodically, and probes all hosts at once. If the primary
 * failed, callers wait for the result, usually 0.5 to 2 s. While several hosts take writes, RowMQ
 * uses none. They are separate databases, or one is cut off and will notice.
 *
 * - `known`: the current host is the primary.
 * - `doubted`: the current host failed, and a search runs.
 * - `disputed`: several hosts take writes, the current one among them.
 * - `none`: no host takes writes, or several others do.
 *
 * One search runs at a time. An event during a search starts no other.
 *
 * | event                                | known             | doubted  | disputed, none  |
 * | ------------------------------------ | ----------------- | -------- | --------------- |
 * | `ready`: a caller wants a connection | goes on           | waits    | searches, waits |
 * | `doubt`: the current host failed     | searches, doubted | –        | searches        |
 * | `suspect`: the current host is slow  | searches          | –        | searches        |
 * | a search finds one that takes writes | known             | known    | known           |
 * | … several, the current one as well   | disputed          | disputed | disputed        |
 * | … none, or several others            | none              | none     | none            |
 */
export class Primary {
  readonly #urls: readonly string[];
  readonly #probe: Probe;
  readonly #onMove: (host: string) => void;
  readonly #sockets = new Map<Socket, number>();
  #current = 0;
  #state: State = KNOWN;
  /** Set while a search runs, including the pause after a failed one. */
  #search: Promise<void> | undefined;

  /** @param onMove Called with the new primary's host. */
  constructor(urls: readonly string[], probe: Probe, onMove: (host: string) => void = () => undefined) {
    this.#urls = urls;
    this.#probe = probe;
    this.#onMove = onMove;
  }

  /**
   * Returns undefined for a URL with a single host, which leaves no choice. Throws TypeError for
   * text that is no database URL.
   */
  static of(url: string, tls?: DatabaseTls, onMove?: (host: string) => void): Primary | undefined {
    const urls = databaseHosts(url);
    return urls.length === 1 ? undefined : new Primary(urls, (single) => probeServer(single, tls), onMove);
  }

  /** `host:port` of the server that connections go to. */
  get host(): string {
    return hostOf(this.#urls[this.#current] as string);
  }

  /**
   * Probes every host when a process starts. Throws {@link NoPrimaryError} if none takes writes.
   *
   * Throws Error if several do: they are no replicated database, and messages would scatter over
   * them.
   */
  async find(): Promise<void> {
    const answers = await Promise.allSettled(this.#urls.map((url) => this.#probe(url)));
    const writable = answers.flatMap(({ status }, index) => (status === 'fulfilled' ? [index] : []));
    if (writable.length > 1) throw new Error(this.#allTakeWrites(writable));
    if (writable[0] === undefined) throw this.#noPrimary(answers);
    // The first primary of a process is not a change.
    this.#current = writable[0];
    this.#use(writable[0]);
  }

  /**
   * Opens a socket to the primary for mysql2. It also sets the host in mysql2's config, because the
   * server's certificate has to name that host.
   */
  readonly open = ({ config }: { config: { host?: string; port?: number } }): Socket => {
    const index = this.#current;
    const { host, port } = databaseParts(this.#urls[index] as string);
    Object.assign(config, { host, port });
    const socket = connect({
      host,
      port,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: 10_000,
    });
    this.#sockets.set(socket, index);
    socket.once('close', () => this.#sockets.delete(socket));
    return socket;
  };

  /**
   * Resolves when the caller may open a connection. It waits for a search unless the primary is
   * known. Throws {@link NoPrimaryError} when there is no primary.
   */
  async ready(): Promise<void> {
    if (this.#state.name === 'known') return;
    if (this.#state.name !== 'doubted') this.#begin();
    await this.#search;
    if ('error' in this.#state) throw this.#state.error;
  }

  /**
   * Starts a search because this host failed or is read-only. Does nothing if the primary has
   * changed since.
   */
  doubt(host: string): void {
    if (host !== this.host) return;
    if (this.#state.name === 'known') this.#state = DOUBTED;
    this.#begin();
  }

  /**
   * Starts a search because this host is slow. Callers do not wait for it, because most slow hosts
   * are healthy.
   */
  suspect(host: string): void {
    if (host === this.host) this.#begin();
  }

  #begin(): void {
    this.#search ??= this.#find();
  }

  /** Never rejects. */
  async #find(): Promise<void> {
    const writable: number[] = [];
    const probes = this.#urls.map(async (url, index) => {
      await this.#probe(url);
      writable.push(index);
    });
    const all = Promise.allSettled(probes);
    const heard = probes.map(async (probe, index) =>
      Promise.race([probe.catch(() => undefined), this.#patience(index)]),
    );
    await Promise.all([Promise.any(probes), ...heard]).catch(() => all);
    const [found, ...others] = writable;
    if (found !== undefined && others.length === 0) {
      this.#search = undefined;
      return this.#use(found);
    }
    const error =
      found === undefined
        ? this.#noPrimary(await all)
        : new NoPrimaryError(this.#allTakeWrites(writable), [
            new ReadOnlyServerError('more than one host takes writes'),
          ]);
    this.#state = { name: writable.includes(this.#current) ? 'disputed' : 'none', error };
    await sleep(PAUSE_MS.min + Math.random() * (PAUSE_MS.max - PAUSE_MS.min));
    this.#search = undefined;
  }

  /**
   * The time to wait for a host once another takes writes. The current one gets longer if it took
   * writes in the last search: to leave it by mistake means to write to another database.
   */
  async #patience(index: number): Promise<void> {
    const isInUse = index === this.#current && this.#state.name !== 'none';
    await sleep(isInUse ? PROBE_DEADLINE_MS : GRACE_MS, undefined, { ref: false });
  }

  #use(index: number): void {
    const isAnother = index !== this.#current;
    this.#state = KNOWN;
    this.#current = index;
    for (const [socket, leadsTo] of this.#sockets) if (leadsTo !== index) socket.destroy();
    if (isAnother) this.#onMove(this.host);
  }

  #noPrimary(answers: readonly PromiseSettledResult<void>[]): NoPrimaryError {
    const reasons = answers.map((answer): unknown => (answer.status === 'rejected' ? answer.reason : undefined));
    const hosts = this.#urls.map((url, index) => `${hostOf(url)} (${reason(reasons[index])})`);
    return new NoPrimaryError(`no host takes writes: ${hosts.join(', ')}`, reasons);
  }

  #allTakeWrites(indexes: readonly number[]): string {
    const hosts = indexes.toSorted((one, other) => one - other).map((index) => hostOf(this.#urls[index] as string));
    return `${hosts.join(' and ')} both take writes; all but the primary must be read-only (super_read_only=ON or read_only=ON)`;
  }
}

/**
 * Throws {@link ReadOnlyServerError} for a replica, a demoted primary, or a secondary member of a
 * group.
 */
export function refuseReadOnly(readOnly: unknown): void {
  // MariaDB 12 returns words instead of numbers.
  if (!['0', 'OFF'].includes(String(readOnly))) throw new ReadOnlyServerError();
}

async function probeServer(url: string, tls?: DatabaseTls): Promise<void> {
  const connection = await createConnection({
    uri: url,
    connectTimeout: PROBE_DEADLINE_MS,
    ...(tls && { ssl: tls }),
  });
  try {
    const sql = 'SELECT @@GLOBAL.read_only AS readOnly';
    const [[row]] = await connection.query<RowDataPacket[]>({ sql, timeout: PROBE_DEADLINE_MS });
    refuseReadOnly(row?.['readOnly']);
  } finally {
    connection.destroy();
  }
}

function hostOf(url: string): string {
  return new URL(url).host;
}
