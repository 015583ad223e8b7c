import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { databaseHosts, databaseParts, type DatabaseTls, reason } from '@rowmq/runtime';
import { createConnection, type RowDataPacket } from 'mysql2/promise';
import { isRetryable, ReadOnlyServerError } from './database-errors.js';

/** For a host's answer: connecting, logging in and one statement, each. */
const LOOK_DEADLINE_MS = 2000;
/** After a search in vain, until the next: whoever asks meanwhile shares it. */
const PAUSE_MS = { min: 100, max: 200 };

/** Resolves when the server at this URL says that it takes writes; throws why it does not. */
export type Look = (url: string) => Promise<void>;

/** None of the hosts takes writes now. Retryable where that of one of them is: a password that is wrong everywhere does not become right. */
export class NoPrimaryError extends Error {
  override readonly name = 'NoPrimaryError';
  readonly driverError: unknown;

  /** @param reasons of each host */
  constructor(
    hosts: readonly string[],
    readonly reasons: readonly unknown[],
  ) {
    super(`no host takes writes: ${hosts.map((host, index) => `${host} (${reason(reasons[index])})`).join(', ')}`);
    this.driverError = reasons.find((error) => isRetryable(error)) ?? reasons[0];
  }
}

/**
 * Which of several servers that stand in for each other takes writes. New connections go there; when another takes its place, the connections to it are closed, so that
 * nothing is read from, or waits for, a server that is no longer the primary.
 *
 * It is looked for when something goes wrong, not all the time: all hosts are asked at once whether they are read-only, and whoever needs a connection meanwhile waits for
 * the answer, two seconds or so at most.
 */
export class Primary {
  readonly #urls: readonly string[];
  readonly #look: Look;
  /** Told the host that has become the primary. */
  onMove: (host: string) => void = () => undefined;
  readonly #sockets = new Map<Socket, number>();
  #current = 0;
  /** Set while no host is known to take writes: then it is asked again before anybody connects. */
  #lost: NoPrimaryError | undefined;
  #search: Promise<void> | undefined;

  constructor(urls: readonly string[], look: Look = lookAt) {
    this.#urls = urls;
    this.#look = look;
  }

  /** For a URL that names several hosts; undefined for one, of which there is nothing to choose. Throws TypeError for what is no database URL. */
  static of(url: string, tls?: DatabaseTls): Primary | undefined {
    const urls = databaseHosts(url);
    return urls.length === 1 ? undefined : new Primary(urls, (single) => lookAt(single, tls));
  }

  /** `host:port` of the server that connections go to. */
  get host(): string {
    return hostOf(this.#urls[this.#current] as string);
  }

  /**
   * Asks every host, at the start of a process. Throws {@link NoPrimaryError}, and Error when several take writes: that is no replicated
   * database, and messages would be stored here and there.
   */
  async find(): Promise<void> {
    const answers = await Promise.allSettled(this.#urls.map((url) => this.#look(url)));
    const writable = answers.flatMap(({ status }, index) => (status === 'fulfilled' ? [index] : []));
    if (writable.length > 1) {
      const hosts = writable.map((index) => hostOf(this.#urls[index] as string));
      throw new Error(
        `${hosts.join(' and ')} both take writes; all but the primary must be read-only (super_read_only=ON or read_only=ON)`,
      );
    }
    if (writable[0] === undefined) throw this.#noPrimary(answers);
    this.#use(writable[0]);
  }

  /** A socket to the primary, for a connection of mysql2: which is told where it leads, since that is what the server's certificate has to name. */
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

  /** Resolves when a connection may be opened: at once, or when the search under way has an answer. Throws {@link NoPrimaryError} when there is no primary. */
  async ready(): Promise<void> {
    if (this.#search === undefined && this.#lost !== undefined) this.#begin();
    await this.#search;
    if (this.#lost !== undefined) throw this.#lost;
  }

  /** Begins to look for the primary, because this host (as {@link host} named it before) failed, was read-only or is slow to answer. Does nothing if another has taken its place already. */
  doubt(host: string): void {
    if (host === this.host) this.#begin();
  }

  #begin(): void {
    this.#search ??= this.#find(this.#current).finally(() => {
      this.#search = undefined;
    });
  }

  /** Never rejects. Prefers another to the one in doubt: one that is cut off from the others may not know yet that it takes no writes. */
  async #find(doubtful: number): Promise<void> {
    const looks = this.#urls.map((url) => this.#look(url));
    const all = Promise.allSettled(looks);
    const found = looks.flatMap((look, index) => (index === doubtful ? [] : [look.then(() => index)]));
    try {
      this.#use(await Promise.any(found));
    } catch {
      const answers = await all;
      if (answers[doubtful]?.status === 'fulfilled') this.#use(doubtful);
      else {
        this.#lost = this.#noPrimary(answers);
        await sleep(PAUSE_MS.min + Math.random() * (PAUSE_MS.max - PAUSE_MS.min));
      }
    }
  }

  #use(index: number): void {
    const isAnother = index !== this.#current;
    this.#lost = undefined;
    this.#current = index;
    for (const [socket, leadsTo] of this.#sockets) if (leadsTo !== index) socket.destroy();
    if (isAnother) this.onMove(this.host);
  }

  #noPrimary(answers: readonly PromiseSettledResult<void>[]): NoPrimaryError {
    return new NoPrimaryError(
      this.#urls.map(hostOf),
      answers.map((answer) => (answer.status === 'rejected' ? answer.reason : undefined)),
    );
  }
}

/** Throws {@link ReadOnlyServerError} for a server that is a replica, a demoted primary, or a member that is not its group's primary. */
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
