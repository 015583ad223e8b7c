import { createServer, type IncomingMessage, type RequestListener, Server, type ServerResponse } from 'node:http';
import { Server as Listener, type Socket } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import { RowmqError } from '@rowmq/contract';
import { bareAnswer } from './bare-answer.js';

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

/** For at most this long, the broker accepts the connections that wait when a stop begins. */
const ACCEPT_MS = 1000;
/** An idle connection stays open this long after the beginning of a stop. */
const IDLE_MS = 1000;
/**
 * A client gets this long to read the last words of a connection. One that reads closes its end at
 * once.
 */
const LINGER_MS = 2000;
/** Each of the two waits is at most this share of the time of a stop. */
const WAIT_SHARE = 0.25;
/** After this share of a stop's time, the broker cuts connections that their clients hold up. */
const STUCK_SHARE = 0.5;
/** A client holds a connection up if it neither sends nor reads anything for this long. */
const STUCK_MS = 500;

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

  constructor(private readonly limits: ConnectionLimits) {
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
      if (this.connections.get(request.socket)?.admit(request, response, this.isRetiring) === true)
        handle(request, response);
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

  /** Begins a stop: no new connections, and the last answer on each of the others. */
  announceStop(): void {
    this.stop ??= this.retire();
  }

  /** Stops, and resolves when no connection is left. The process bounds the time. */
  async drained(): Promise<void> {
    this.announceStop();
    await this.stop;
    const cutFrom = performance.now() + this.limits.stopMs * STUCK_SHARE;
    const timer = setInterval(() => performance.now() < cutFrom || this.cutStuck(), STUCK_MS);
    await new Promise<void>((resolve) => {
      this.onEmpty = resolve;
      if (this.connections.size === 0) resolve();
    });
    clearInterval(timer);
  }

  /**
   * Stops listening, and only then tells clients to leave. A client that is told so connects again
   * at once. The system resets a connection that waits to be accepted when the broker stops
   * listening, perhaps with a request on it.
   */
  private async retire(): Promise<void> {
    const until = performance.now() + ACCEPT_MS;
    // Node accepts one connection in each turn of its event loop. The first turn may be this one.
    for (let before = -1; before !== this.opened && performance.now() < until;) {
      before = this.opened;
      await turn();
      await turn();
    }
    // The close of an HTTP server would also close the idle connections.
    for (const server of this.servers) if (server.listening) Listener.prototype.close.call(server);
    this.isRetiring = true;
    for (const connection of this.connections.values()) connection.retire();
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
  private cutStuck(): void {
    for (const [socket, connection] of this.connections) if (connection.isStuck()) socket.destroy();
  }
}

/** The time that an idle connection stays open in a stop, and that its end may take. */
interface Waits {
  idleMs: number;
  lingerMs: number;
}

/** One connection of a client. */
class Connection {
  /** Requests without a complete answer. */
  private owed = 0;
  private newest: ServerResponse | undefined;
  private newestRequest: IncomingMessage | undefined;
  private isRetiring = false;
  private waitingAt: number | undefined;
  private isDismissed = false;
  private timer: NodeJS.Timeout | undefined;
  private readonly answered = (): void => {
    this.owed -= 1;
    if (this.isRetiring && this.owed === 0) this.dismissLater();
  };

  constructor(
    private readonly socket: Socket,
    private readonly waits: Waits,
  ) {}

  get isIdle(): boolean {
    return this.owed === 0;
  }

  /** Whether the broker has waited for the client since the last call, and no byte has moved. */
  isStuck(): boolean {
    const { bytesRead, bytesWritten } = this.socket;
    const isWorking = this.owed > 0 && this.newestRequest?.complete === true && this.newest?.writableEnded === false;
    const moved = bytesRead + bytesWritten;
    const before = this.waitingAt;
    this.waitingAt = isWorking ? undefined : moved;
    return !isWorking && before === moved;
  }

  /**
   * Whether to carry out a request. One that follows the last answer of a connection is never
   * carried out: its client learns from the end of the connection that it gets no answer.
   */
  admit(request: IncomingMessage, response: ServerResponse, isRetiring: boolean): boolean {
    if (this.isDismissed || (this.newest?.headersSent === true && !this.newest.shouldKeepAlive)) return false;
    this.owed += 1;
    response.once('close', this.answered);
    if (isRetiring) {
      clearTimeout(this.timer);
      // If several requests came at once, only the last answer may end the connection.
      if (this.newest?.headersSent === false) this.newest.shouldKeepAlive = true;
      response.shouldKeepAlive = false;
    }
    this.newest = response;
    this.newestRequest = request;
    return true;
  }

  /** Makes the next answer the last one, or ends an idle connection after a while. */
  retire(): void {
    this.isRetiring = true;
    if (this.owed === 0) this.dismissLater();
    else if (this.newest?.headersSent === false) this.newest.shouldKeepAlive = false;
  }

  /** Ends an idle connection with a {@link FAREWELL}. */
  dismiss(): void {
    if (this.owed > 0 || this.isDismissed) return;
    this.isDismissed = true;
    // The client's next bytes are read and dropped. Unread, they would make the system reset the
    // connection, and the client might not see the farewell.
    this.socket.end(FAREWELL);
    this.timer = setTimeout(() => this.socket.destroy(), this.waits.lingerMs).unref();
  }

  end(): void {
    clearTimeout(this.timer);
  }

  private dismissLater(): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.dismiss(), this.waits.idleMs);
  }
}
