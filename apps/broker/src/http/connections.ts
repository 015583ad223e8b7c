import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { RowmqError } from '@rowmq/contract';
import { bareAnswer } from './bare-answer.js';
import { stopListening } from './stop-listening.js';

/** How a broker treats the connections of its clients. */
export interface ConnectionLimits {
  /** The broker closes a connection that has been idle for this long. */
  keepAliveMs: number;
  /** The time within which a request must be complete. */
  requestMs: number;
  /** The broker hangs up if no byte moves for this long. */
  standstillMs: number;
  /** The time that an ordered stop may take. */
  stopMs: number;
}

/** In a stop, an idle connection stays open for this long. */
const IDLE_MS = 1000;
/**
 * A client gets this long to read the last words of a connection. One that reads closes its end at
 * once.
 */
const LINGER_MS = 2000;
/**
 * A connection has at most so many requests under way. One read from a connection may bring a
 * thousand requests that arrive without a wait for answers (pipelining). Carried out at once, they
 * would leave a thousand answers to a client that need not read them.
 */
const MOST_UNDER_WAY = 8;
/** Each wait is at most this share of the time of a stop. */
const WAIT_SHARE = 0.25;
/** After this share of a stop's time, the broker cuts connections that their clients hold up. */
const CUT_SHARE = 0.75;

/**
 * The last words on an idle connection. A request may be on its way to the broker at the same
 * moment. Its client takes this for the answer, and it is true: the broker reads the connection no
 * more. Clients and proxies drop an idle connection on which a 408 comes (RFC 9110, 15.5.9).
 */
const FAREWELL = bareAnswer(
  408,
  new RowmqError(
    'overloaded',
    'The broker closed this connection because it was idle. Your request came too late, and nothing was done. Send it again.',
  ),
);

/**
 * The connections of the broker's clients, from their first byte to the last. It closes each so
 * that its client knows what became of every request.
 *
 * HTTP lets a server close an idle connection at any time, also while a request is on its way. The
 * client of that request cannot know whether it was carried out. So an ordered stop goes:
 *
 * 1. The broker stops listening. New connections are refused, and nothing was sent on them.
 * 2. The next answer on each connection says `Connection: close`, and the connection ends with it.
 * 3. A connection that stays idle ends with a {@link FAREWELL}.
 */
export class Connections {
  private readonly servers: Server[] = [];
  private readonly connections = new Map<Socket, Connection>();
  private readonly waits: Waits;
  private onEmpty: (() => void) | undefined;
  private stop: Promise<void> | undefined;
  private isRetiring = false;
  private opened = 0;
  /** The requests that begin when the broker has stopped listening. */
  private held: (() => void)[] | undefined;

  /** @param leavePort a worker's way to stop new connections, as it does not listen itself */
  constructor(
    private readonly limits: ConnectionLimits,
    private readonly leavePort?: () => Promise<void>,
  ) {
    const most = limits.stopMs * WAIT_SHARE;
    this.waits = { idleMs: Math.min(IDLE_MS, most), lingerMs: Math.min(LINGER_MS, most) };
  }

  /** Whether a stop has begun. */
  get isStopping(): boolean {
    return this.stop !== undefined;
  }

  /** Makes the HTTP server. It does not listen yet. */
  createServer(handle: RequestListener): Server {
    const { keepAliveMs, requestMs, standstillMs } = this.limits;
    const server = createServer({ keepAliveTimeout: keepAliveMs, requestTimeout: requestMs });
    server.setTimeout(standstillMs);
    server.on('connection', (socket: Socket) => this.open(socket));
    server.on('request', (request: IncomingMessage, response: ServerResponse) => {
      const connection = this.connections.get(request.socket);
      if (connection?.admit(response, this.isRetiring) !== true) {
        // Nobody else reads its body. Unread, it would make the system reset the connection.
        request.resume();
        return;
      }
      const begin = (): void => connection.begin(response, () => handle(request, response));
      if (this.held === undefined) begin();
      else this.held.push(begin);
    });
    // Node also calls this when a connection was idle for `keepAliveMs`.
    server.on('timeout', (socket: Socket) => {
      const connection = this.connections.get(socket);
      if (connection?.isIdle === true) connection.dismiss();
      else socket.destroy();
    });
    this.servers.push(server);
    return server;
  }

  /** Ends a connection on which bytes arrived that are no request, with these words if it may. */
  refuse(socket: Socket, words: string): void {
    const connection = this.connections.get(socket);
    if (connection === undefined || socket.destroyed) socket.destroy();
    else connection.refuse(words);
  }

  /** Begins a stop: no new connections, and the last answer on each of the others. */
  announceStop(): void {
    this.stop ??= this.retire();
  }

  /** Stops, and resolves when no connection is left. The process bounds the time. */
  async drained(): Promise<void> {
    this.announceStop();
    await this.stop;
    const cutFrom = performance.now() + this.limits.stopMs * CUT_SHARE;
    const timer = setInterval(() => this.cutHeldUp(performance.now() >= cutFrom), this.waits.idleMs);
    await new Promise<void>((resolve) => {
      this.onEmpty = resolve;
      if (this.connections.size === 0) resolve();
    });
    clearInterval(timer);
  }

  /**
   * Takes no more connections, and only then tells clients to leave: they connect again at once.
   * Meanwhile no request begins. Clients that wait for an answer open no further connection, so the
   * broker can accept all that there are.
   */
  private async retire(): Promise<void> {
    const held: (() => void)[] = (this.held = []);
    await this.leavePort?.();
    for (const server of this.servers) await stopListening(server, () => this.opened);
    this.held = undefined;
    this.isRetiring = true;
    for (const connection of this.connections.values()) connection.retire();
    for (const begin of held) begin();
  }

  private open(socket: Socket): void {
    this.opened += 1;
    const connection = new Connection(socket, this.waits);
    this.connections.set(socket, connection);
    socket.once('close', () => {
      connection.end();
      this.connections.delete(socket);
      if (this.connections.size === 0) this.onEmpty?.();
    });
    if (this.isRetiring) connection.retire();
  }

  /** Cuts connections whose clients do not finish their request, or do not read their answer. */
  private cutHeldUp(isTime: boolean): void {
    for (const [socket, connection] of this.connections) if (connection.isHeldUp() && isTime) socket.destroy();
  }
}

/** The time that an idle connection stays open in a stop, and that its end may take. */
interface Waits {
  idleMs: number;
  lingerMs: number;
}

/** One connection of a client. */
class Connection {
  /** The answers that are not complete, in the order of their requests. */
  private readonly owed = new Set<ServerResponse>();
  /** The owed answers whose requests are under way. */
  private readonly underWay = new Set<ServerResponse>();
  /** Begin the other requests, in their order. */
  private readonly later: (() => void)[] = [];
  private newest: ServerResponse | undefined;
  private isRetiring = false;
  private isWaiting = false;
  private isEnding = false;
  private timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly socket: Socket,
    private readonly waits: Waits,
  ) {
    // Node calls it after the last answer. Its own version would not read what the client still
    // sends.
    socket.destroySoon = () => this.endWith();
  }

  get isIdle(): boolean {
    return this.owed.size === 0;
  }

  /** Whether the broker waits for the client, and did so at the last call. */
  isHeldUp(): boolean {
    const before = this.isWaiting;
    this.isWaiting = ![...this.underWay].some((response) => response.req.complete && !response.writableEnded);
    return before && this.isWaiting;
  }

  /**
   * Whether to carry out a request. One that follows the last answer of a connection is never
   * carried out: its client learns from the end of the connection that it gets no answer.
   */
  admit(response: ServerResponse, isRetiring: boolean): boolean {
    if (this.isEnding || (this.newest?.headersSent === true && !this.newest.shouldKeepAlive)) return false;
    this.owed.add(response);
    response.once('close', () => {
      this.owed.delete(response);
      if (this.isRetiring && this.isIdle) this.dismissLater();
    });
    if (isRetiring) {
      clearTimeout(this.timer);
      // If several requests came at once, only the last answer may end the connection.
      if (this.newest?.headersSent === false) this.newest.shouldKeepAlive = true;
      response.shouldKeepAlive = false;
    }
    this.newest = response;
    return true;
  }

  /** Carries out a request that was admitted, when not too many are under way. */
  begin(response: ServerResponse, carryOut: () => void): void {
    if (this.underWay.size === MOST_UNDER_WAY) {
      this.later.push(() => this.begin(response, carryOut));
      return;
    }
    this.underWay.add(response);
    response.once('close', () => {
      this.underWay.delete(response);
      this.later.shift()?.();
    });
    carryOut();
  }

  /** Makes the next answer the last one, or ends an idle connection after a while. */
  retire(): void {
    this.isRetiring = true;
    if (this.isIdle) this.dismissLater();
    else if (this.newest?.headersSent === false) this.newest.shouldKeepAlive = false;
  }

  /**
   * Ends an idle connection with a {@link FAREWELL}. First it reads what has arrived: after a stall
   * of the process, a timer fires before a request is read that came long ago.
   */
  dismiss(): void {
    setImmediate(() => {
      if (this.isIdle) this.endWith(FAREWELL);
    });
  }

  /** Ends the connection because of bytes that are no request, or of one that comes too slowly. */
  refuse(words: string): void {
    // The client would take the words for an answer that it is owed for an earlier request.
    const isOther = [...this.owed].some((response) => response.req.complete || response.headersSent);
    if (!isOther) this.endWith(words);
    // The rest of a slow request could still come, and be carried out.
    if (!this.isIdle) this.socket.destroy();
  }

  /** Its client is gone. */
  end(): void {
    clearTimeout(this.timer);
    this.later.length = 0;
  }

  private dismissLater(): void {
    if (this.isEnding) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.dismiss(), this.waits.idleMs);
  }

  /**
   * The end of what the broker sends. It reads and drops the client's next bytes for a while.
   * Unread, they would make the system reset the connection, and the client might miss the words.
   */
  private endWith(words?: string): void {
    if (this.isEnding) return;
    this.isEnding = true;
    clearTimeout(this.timer);
    if (words !== undefined) this.socket.write(words);
    this.socket.end();
    this.timer = setTimeout(() => this.socket.destroy(), this.waits.lingerMs).unref();
  }
}
