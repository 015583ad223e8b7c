import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { databaseHosts, databaseParts, type DatabaseTls, reason } from '@rowmq/runtime';
import { createConnection, type RowDataPacket } from 'mysql2/promise';
import { isRetryable, ReadOnlyServerError } from './database-errors.js';

/** For a host's answer: connecting, logging in and one statement, each. */
const LOOK_DEADLINE_MS = 2000;
/**
 * So long do hosts have to say that they take writes, when another does: two are to be noticed, but
 * one that hangs is not to hold everybody up.
 */
const GRACE_MS = 500;
/** After a search in vain, until the next: whoever asks meanwhile shares it. */
const PAUSE_MS = { min: 100, max: 200 };

/** Resolves when the server at this URL says that it takes writes; throws why it does not. */
export type Look = (url: string) => Promise<void>;

/** There is no host to write to now. Retryable where the reason of one of the hosts is. */
export class NoPrimaryError extends Error {
  override readonly name = 'NoPrimaryError';

  readonly driverError: unknown;

  /** @param reasons of each host */
  constructor(
    message: string,
    readonly reasons: readonly unknown[],
  ) {
    super(message);
    // A password that is wrong everywhere does not become right.
    this.driverError = reasons.find((error) => isRetryable(error)) ?? reasons[0];
  }
}

/**
 * Which of several servers that stand in for each other takes writes. New connections go there;
 * when another takes its place, the connections to it are closed, so that nothing is read from, or
 * waits for, a server that is no longer the primary.
 *
 * It is looked for when something goes wrong, not all the time: all hosts are asked at once whether
 * they are read-only, and where the primary has failed, whoever needs a connection meanwhile waits
 * for the answer, half a second or two mostly. While several take writes, none is used: they are
 * two databases, or one of them is cut off and will notice.
 */
export class Primary {
  readonly #urls: readonly string[];
  readonly #look: Look;
  readonly #onMove: (host: string) => void;
  readonly #sockets = new Map<Socket, number>();
  #current = 0;
  /** Set while no host is known to take writes: then it is asked again before anybody connects. */
  #lost: NoPrimaryError | undefined;
  #search: Promise<void> | undefined;
  /** The search under way is for one that has failed. */
  #hasFailed = false;
  /** When last asked, the host that connections go to said that it takes writes. */
  #isProven = true;

  /** @param onMove told the host that has become the primary */
  constructor(urls: readonly string[], look: Look, onMove: (host: string) => void = () => undefined) {
    this.#urls = urls;
    this.#look = look;
    this.#onMove = onMove;
  }

  /**
   * For a URL that names several hosts; undefined for one, of which there is nothing to choose.
   * Throws TypeError for what is no database URL.
   */
  static of(url: string, tls?: DatabaseTls, onMove?: (host: string) => void): Primary | undefined {
    const urls = databaseHosts(url);
    return urls.length === 1 ? undefined : new Primary(urls, (single) => lookAt(single, tls), onMove);
  }

  /** `host:port` of the server that connections go to. */
  get host(): string {
    return hostOf(this.#urls[this.#current] as string);
  }

  /**
   * Asks every host, at the start of a process. Throws {@link NoPrimaryError}, and Error when
   * several take writes: that is no replicated database, and messages would be stored here and
   * there.
   */
  async find(): Promise<void> {
    const answers = await Promise.allSettled(this.#urls.map((url) => this.#look(url)));
    const writable = answers.flatMap(({ status }, index) => (status === 'fulfilled' ? [index] : []));
    if (writable.length > 1) throw new Error(this.#allTakeWrites(writable));
    if (writable[0] === undefined) throw this.#noPrimary(answers);
    // The first primary of a process is no move.
    this.#current = writable[0];
    this.#use(writable[0]);
  }

  /**
   * A socket to the primary, for a connection of mysql2: which is told where it leads, since that
   * is what the server's certificate has to name.
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
   * Resolves when a connection may be opened: at once, or when the search for one that has failed
   * or was lost is over. Throws {@link NoPrimaryError} when there is no primary.
   */
  async ready(): Promise<void> {
    if (this.#search === undefined && this.#lost !== undefined) this.#begin();
    if (this.#hasFailed || this.#lost !== undefined) await this.#search;
    if (this.#lost !== undefined) throw this.#lost;
  }

  /**
   * Begins to look for the primary, because this host (as {@link host} named it before) failed or
   * is read-only. Does nothing if another has taken its place already.
   */
  doubt(host: string): void {
    if (host !== this.host) return;
    this.#hasFailed = true;
    this.#begin();
  }

  /**
   * The same for a host that is slow to answer. Nobody waits for the result, since most that are
   * slow are well.
   */
  suspect(host: string): void {
    if (host === this.host) this.#begin();
  }

  #begin(): void {
    this.#search ??= this.#find().finally(() => {
      this.#search = undefined;
      this.#hasFailed = false;
    });
  }

  /** Never rejects. */
  async #find(): Promise<void> {
    const writable: number[] = [];
    const looks = this.#urls.map(async (url, index) => {
      await this.#look(url);
      writable.push(index);
    });
    const all = Promise.allSettled(looks);
    const heard = looks.map(async (look, index) => Promise.race([look.catch(() => undefined), this.#patience(index)]));
    await Promise.all([Promise.any(looks), ...heard]).catch(() => all);
    const [found, ...others] = writable;
    this.#isProven = writable.includes(this.#current);
    if (found !== undefined && others.length === 0) return this.#use(found);
    if (found === undefined) this.#lost = this.#noPrimary(await all);
    else
      this.#lost = new NoPrimaryError(this.#allTakeWrites(writable), [
        new ReadOnlyServerError('more than one host takes writes'),
      ]);
    await sleep(PAUSE_MS.min + Math.random() * (PAUSE_MS.max - PAUSE_MS.min));
  }

  /**
   * How long a host is waited for when another takes writes: the one in use longer, unless that was
   * in vain before, since to leave it wrongly is to write to another database.
   */
  async #patience(index: number): Promise<void> {
    const isInUse = index === this.#current && this.#isProven;
    await sleep(isInUse ? LOOK_DEADLINE_MS : GRACE_MS, undefined, { ref: false });
  }

  #use(index: number): void {
    const isAnother = index !== this.#current;
    this.#lost = undefined;
    this.#isProven = true;
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
 * Throws {@link ReadOnlyServerError} for a server that is a replica, a demoted primary, or a member
 * that is not its group's primary.
 */
export function refuseReadOnly(readOnly: unknown): void {
  // MariaDB 12 has words for it.
  if (!['0', 'OFF'].includes(String(readOnly))) throw new ReadOnlyServerError();
}

async function lookAt(url: string, tls?: DatabaseTls): Promise<void> {
  const connection = await createConnection({
    uri: url,
    connectTimeout: LOOK_DEADLINE_MS,
    ...(tls && { ssl: tls }),
  });
  try {
    const sql = 'SELECT @@GLOBAL.read_only AS readOnly';
    const [[row]] = await connection.query<RowDataPacket[]>({ sql, timeout: LOOK_DEADLINE_MS });
    refuseReadOnly(row?.['readOnly']);
  } finally {
    connection.destroy();
  }
}

function hostOf(url: string): string {
  return new URL(url).host;
}
