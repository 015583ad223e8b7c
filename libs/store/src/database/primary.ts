import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { databaseHosts, databaseParts, type DatabaseTls, reason } from '@rowmq/runtime';
import { type Connection, createConnection, type RowDataPacket } from 'mysql2/promise';
import { isRetryable, ReadOnlyServerError } from './database-errors.js';
import type { Row } from './session.js';
import { SESSION_AS_SET, SESSION_FACTS } from './session-setup.js';

/** The deadline for a probe's connect and login, and again for its statement. */
const PROBE_DEADLINE_MS = 2000;
/**
 * Once one host has said that it takes writes, the others have this long to say the same. That
 * detects two primaries without waiting for a host that hangs.
 */
const GRACE_MS = 500;
/** The pause after a failed search. All callers in that time share its result. */
const PAUSE_MS = { min: 100, max: 200 };

/**
 * A probe of a host that takes writes has so many connections open at once. A balancer over two
 * servers leads them to both.
 */
const PROBE_CONNECTIONS = 3;
/**
 * A host that leads to another server than before must lead to that one alone for this long. So
 * must one after a dispute. A balancer that chooses at random would otherwise pass for a failover,
 * or for the end of the dispute, now and then.
 */
const AGREE_MS = 2000;

/** The answer of a host that takes writes. */
export interface Proof {
  /** The identity of the server that said so first. */
  readonly server: string;
  /**
   * The identities of the servers that take writes and to which further connections led. Never
   * rejects, and resolves within the probe's deadline.
   */
  readonly others: Promise<readonly string[]>;
}

/**
 * Probes a host. Resolves as soon as a server behind it has said that it takes writes. Throws the
 * reason if none does.
 */
export type Probe = (url: string) => Promise<Proof>;

/** A server that takes writes, and the host that leads to it. */
interface Writable {
  readonly index: number;
  readonly server: string;
}

/** A host that takes writes, while it may turn out to lead to several servers. */
type Claimant = Writable & Proof;

/** The states of {@link Primary}, whose comment lists the events. */
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
 * Tracks which server is the primary: which of several replicated hosts, and which server behind a
 * host's name. New connections go to it. When the primary changes, connections to the old one
 * close, so that no request reads from it or waits for it.
 *
 * A search starts on a failure or on another server's answer, not periodically, and probes all
 * hosts at once. If the primary failed, callers wait for the result, usually 0.5 to 2 s. While
 * several servers take writes, RowMQ uses none. They are separate databases, or one is cut off and
 * will notice.
 *
 * - `known`: the current host leads to the primary.
 * - `doubted`: the current host failed or led to another server, and a search runs.
 * - `disputed`: several servers take writes, behind several hosts or behind one.
 * - `none`: no host takes writes, or several others do.
 *
 * One search runs at a time. An event during a search starts no other. With one host there is no
 * choice, so failures start no search. The events:
 *
 * - `ready`, a caller wants a connection: it goes on if the primary is known. If not, it waits for
 *   the search, and starts one unless one runs.
 * - `meet`, another server answered: searches, and doubts a known primary.
 * - `doubt`, the current host failed: searches, and doubts a known primary.
 * - `suspect`, the current host is slow: searches. A known primary stays known.
 * - A search finds one server that takes writes: the primary is known. After a dispute, and if the
 *   current host leads to another server, it must stay the only one for {@link AGREE_MS}.
 * - A search finds several, one of them behind the current host: disputed.
 * - A search finds several behind other hosts, or no server: none.
 */
export class Primary {
  readonly #urls: readonly string[];
  readonly #probe: Probe;
  readonly #onMove: (primary: string) => void;
  readonly #sockets = new Map<Socket, number>();
  #current = 0;
  /** The identity of the server in use. Undefined until it has answered. */
  #server: string | undefined;
  #state: State = KNOWN;
  /** Set while a search runs, including the pause after a failed one. */
  #search: Promise<void> | undefined;

  /** @param onMove Called with the new primary's host, and its identity if the host is the same. */
  constructor(urls: readonly string[], probe: Probe, onMove: (primary: string) => void = () => undefined) {
    this.#urls = urls;
    this.#probe = probe;
    this.#onMove = onMove;
  }

  /** Throws TypeError for text that is no database URL. */
  static of(url: string, tls?: DatabaseTls, onMove?: (primary: string) => void): Primary {
    return new Primary(databaseHosts(url), (single) => probeServer(single, tls), onMove);
  }

  /** Whether there are several hosts. */
  get hasChoice(): boolean {
    return this.#urls.length > 1;
  }

  /** `host:port` of the server that connections go to. */
  get host(): string {
    return hostOf(this.#urls[this.#current] as string);
  }

  /**
   * Probes every host when a process starts. Throws {@link NoPrimaryError} if none takes writes. A
   * single host may be read-only: its name may lead to the primary later. Otherwise it throws that
   * host's own error.
   *
   * Throws Error if several servers take writes: they are no replicated database, and messages
   * would scatter over them. It asks the host twice, because a balancer may lead all connections of
   * one probe to the same server.
   */
  async find(): Promise<void> {
    const answers = await Promise.allSettled(this.#urls.map((_, index) => this.#claim(index)));
    const claimants = answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []));
    if (claimants.length === 0) {
      const [answer] = answers;
      if (this.hasChoice || answer?.status !== 'rejected') throw this.#noPrimary(answers);
      if (answer.reason instanceof ReadOnlyServerError) return;
      throw answer.reason;
    }
    const found = await this.#judge(claimants);
    const again = await this.#claim(found.index).catch(() => found);
    await this.#judge([found, again]);
    // The first primary of a process is not a change.
    this.#current = found.index;
    this.#server = found.server;
    this.#use(found);
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
   * Takes note of the server behind a connection. Throws {@link ReadOnlyServerError} and starts a
   * search if it is not the one in use.
   */
  meet(server: string): void {
    this.#server ??= server;
    if (server === this.#server) return;
    const error = new ReadOnlyServerError(
      `${this.host} led to server ${server}, and before to ${this.#server}`,
      'ANOTHER_SERVER',
    );
    if (this.#state.name === 'known') this.#state = DOUBTED;
    this.#begin();
    throw error;
  }

  /**
   * Starts a search because this host failed or is read-only. Does nothing if the primary has
   * changed since.
   */
  doubt(host: string): void {
    if (host !== this.host || !this.hasChoice) return;
    if (this.#state.name === 'known') this.#state = DOUBTED;
    this.#begin();
  }

  /**
   * Starts a search because this host is slow. Callers do not wait for it, because most slow hosts
   * are healthy.
   */
  suspect(host: string): void {
    if (host === this.host && this.hasChoice) this.#begin();
  }

  #begin(): void {
    this.#search ??= this.#find();
  }

  /** Never rejects. */
  async #find(): Promise<void> {
    const wasDisputed = 'error' in this.#state && this.#state.error.reasons.some(isDispute);
    let answer = await this.#ask();
    if ('server' in answer && (wasDisputed || this.#isOtherBehindSameHost(answer))) answer = await this.#agree(answer);
    if ('server' in answer) {
      this.#search = undefined;
      return this.#use(answer);
    }
    this.#state = answer;
    await pause();
    this.#search = undefined;
  }

  #isOtherBehindSameHost({ index, server }: Writable): boolean {
    return index === this.#current && this.#server !== undefined && server !== this.#server;
  }

  /**
   * Asks again until the host has led to this server alone for {@link AGREE_MS}. Read-only servers
   * behind the same name do not count: the name may lead to the replicas as well.
   */
  async #agree(first: Writable): Promise<Writable | NoServer> {
    for (const begun = performance.now(); performance.now() - begun < AGREE_MS;) {
      await pause();
      const next = await this.#ask();
      if (!('server' in next)) {
        if (isReadOnly(next.error.reasons[first.index])) continue;
        return next;
      }
      if (next.index !== first.index) return next;
      if (next.server !== first.server) return this.#refused([first], this.#severalServers(first, [next.server]));
    }
    return first;
  }

  /** Probes all hosts once. */
  async #ask(): Promise<Writable | NoServer> {
    const claimants: Claimant[] = [];
    const probes = this.#urls.map(async (_, index) => claimants.push(await this.#claim(index)));
    const all = Promise.allSettled(probes);
    try {
      await Promise.any(probes);
    } catch {
      return { name: 'none', error: this.#noPrimary(await all) };
    }
    await Promise.all(
      probes.map(async (probe, index) => Promise.race([probe.catch(() => undefined), this.#patience(index)])),
    );
    try {
      return await this.#judge(claimants);
    } catch (error) {
      if (error instanceof NoPrimaryError) return this.#refused(claimants, error);
      throw error;
    }
  }

  async #claim(index: number): Promise<Claimant> {
    return { index, ...(await this.#probe(this.#urls[index] as string)) };
  }

  /**
   * Returns the one server that takes writes. If several hosts lead to it, the current host comes
   * first. Throws {@link NoPrimaryError} if there are several servers.
   */
  async #judge(claimants: readonly Claimant[]): Promise<Claimant> {
    for (const claimant of claimants) {
      const others = await claimant.others;
      if (others.some((server) => server !== claimant.server)) throw this.#severalServers(claimant, others);
    }
    const [first, ...more] = claimants.toSorted((one, other) => this.#rank(one) - this.#rank(other)) as [Claimant];
    for (const one of more as readonly Claimant[]) {
      if (one.server === first.server) continue;
      throw one.index === first.index
        ? this.#severalServers(first, [one.server])
        : new NoPrimaryError(this.#allTakeWrites(claimants), [
            new ReadOnlyServerError('more than one host takes writes', 'SEVERAL_SERVERS'),
          ]);
    }
    return first;
  }

  /** The current host, then the order of the URL. */
  #rank({ index }: Writable): number {
    return index === this.#current ? -1 : index;
  }

  #refused(claimants: readonly Writable[], error: NoPrimaryError): NoServer {
    const isCurrent = claimants.some(({ index }) => index === this.#current);
    return { name: isCurrent ? 'disputed' : 'none', error };
  }

  #severalServers({ index, server }: Writable, others: readonly string[]): NoPrimaryError {
    const servers = [...new Set([server, ...others])];
    const error = new ReadOnlyServerError(
      `${hostOf(this.#urls[index] as string)} leads to several servers that take writes (${servers.join(', ')}), and messages would scatter over them; let it lead to the primary alone`,
      'SEVERAL_SERVERS',
    );
    return new NoPrimaryError(error.message, [error]);
  }

  /**
   * The time to wait for a host once another takes writes. The current one gets longer if it took
   * writes in the last search: to leave it by mistake means to write to another database.
   */
  async #patience(index: number): Promise<void> {
    const isInUse = index === this.#current && this.#state.name !== 'none';
    await sleep(isInUse ? PROBE_DEADLINE_MS : GRACE_MS, undefined, { ref: false });
  }

  #use({ index, server }: Writable): void {
    const isAnotherHost = index !== this.#current;
    const isReplaced = !isAnotherHost && this.#server !== undefined && server !== this.#server;
    this.#state = KNOWN;
    this.#current = index;
    this.#server = server;
    for (const [socket, leadsTo] of this.#sockets) if (isReplaced || leadsTo !== index) socket.destroy();
    if (isAnotherHost) this.#onMove(this.host);
    else if (isReplaced) this.#onMove(`server ${server} at ${this.host}`);
  }

  #noPrimary(answers: readonly PromiseSettledResult<unknown>[]): NoPrimaryError {
    const reasons = answers.map((answer): unknown => (answer.status === 'rejected' ? answer.reason : undefined));
    const hosts = this.#urls.map((url, index) => `${hostOf(url)} (${reason(reasons[index])})`);
    return new NoPrimaryError(`no host takes writes: ${hosts.join(', ')}`, reasons);
  }

  #allTakeWrites(writable: readonly Writable[]): string {
    const hosts = writable
      .map(({ index }) => index)
      .toSorted((one, other) => one - other)
      .map((index) => hostOf(this.#urls[index] as string));
    return `${hosts.join(' and ')} both take writes; all but the primary must be read-only (super_read_only=ON or read_only=ON)`;
  }
}

/** The state after a search that found no server, or too many. */
type NoServer = Exclude<State, { name: 'known' | 'doubted' }>;

async function pause(): Promise<void> {
  await sleep(PAUSE_MS.min + Math.random() * (PAUSE_MS.max - PAUSE_MS.min));
}

/**
 * Whether the server takes writes, which server it is, and whether the session has its settings.
 *
 * A MySQL server names itself by a UUID. MariaDB has none before 10.6.19, so its host's name, port
 * and `server_id` stand in. Replication needs a `server_id` for each server in any case.
 */
export const ASK_FOR_PROOF = `SELECT @@GLOBAL.read_only AS readOnly, /*!80000 @@GLOBAL.server_uuid *//*M! CONCAT_WS('/', @@GLOBAL.hostname, @@GLOBAL.port, @@GLOBAL.server_id) */ AS server, ${SESSION_FACTS} AS session`;

/**
 * Reads the answer to {@link ASK_FOR_PROOF} and returns the server's identity.
 *
 * Throws {@link ReadOnlyServerError} for a replica, a demoted primary, or a secondary member of a
 * group. Throws it too for a session that lost its settings.
 */
export function readProof(answer: Row | undefined): string {
  refuseReadOnly(answer?.['readOnly']);
  if (answer?.['session'] !== SESSION_AS_SET) {
    throw new ReadOnlyServerError(
      `the session lost the settings that RowMQ gave it (${SESSION_AS_SET}) and has ${String(answer?.['session'])}: a proxy must keep each client on a connection of its own, or restore its settings`,
      'SESSION_LOST',
    );
  }
  return String(answer['server']);
}

/**
 * Throws {@link ReadOnlyServerError} for a replica, a demoted primary, or a secondary member of a
 * group.
 */
export function refuseReadOnly(readOnly: unknown): void {
  // MariaDB 12 returns words instead of numbers.
  if (!['0', 'OFF'].includes(String(readOnly))) throw new ReadOnlyServerError();
}

function isDispute(error: unknown): boolean {
  return error instanceof ReadOnlyServerError && error.failure === 'SEVERAL_SERVERS';
}

function isReadOnly(error: unknown): boolean {
  return error instanceof ReadOnlyServerError && error.failure === 'READ_ONLY';
}

async function probeServer(url: string, tls?: DatabaseTls): Promise<Proof> {
  const opened: Connection[] = [];
  const close = (): void => {
    for (const connection of opened) connection.destroy();
  };
  try {
    const server = await probeOnce(url, tls, opened);
    const servers: string[] = [];
    const more = Array.from({ length: PROBE_CONNECTIONS - 1 }, async () => {
      servers.push(await probeOnce(url, tls, opened));
    });
    // A host may also lead to read-only servers or be short of connections.
    const all = Promise.allSettled(more).finally(close);
    const late = sleep(PROBE_DEADLINE_MS, undefined, { ref: false });
    return { server, others: Promise.race([all, late]).then(() => servers) };
  } catch (error) {
    close();
    throw error;
  }
}

/** Leaves the connection open, so that a balancer leads the next one elsewhere. */
async function probeOnce(url: string, tls: DatabaseTls | undefined, opened: Connection[]): Promise<string> {
  const connection = await createConnection({
    uri: url,
    connectTimeout: PROBE_DEADLINE_MS,
    ...(tls && { ssl: tls }),
  });
  opened.push(connection);
  const [[row]] = await connection.query<RowDataPacket[]>({ sql: ASK_FOR_PROOF, timeout: PROBE_DEADLINE_MS });
  refuseReadOnly(row?.['readOnly']);
  return String(row?.['server']);
}

function hostOf(url: string): string {
  return new URL(url).host;
}
