import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { commits } from './cutting-proxy.js';

const PATIENCE_MS = 60_000;

/**
 * The network between RowMQ's processes and the database. Its faults can be switched on and off
 * during traffic.
 *
 * Data in flight during a cut arrives late, because TCP sends it again. The server may therefore
 * execute a COMMIT long after a broker has given up on it.
 */
export class DatabaseProxy {
  /** The delay of each chunk in each direction. */
  delayMs = 0;
  /**
   * The share of COMMITs that the server executes, but whose answer is lost together with the
   * connection.
   */
  lostAnswers = 0;
  /** Chunks to the server that contain this text do not arrive. The connection stays open. */
  swallowed: string | undefined;
  /** The number of answers lost so far. */
  lost = 0;
  private readonly sockets = new Set<Socket>();
  private whole: Promise<void> = Promise.resolve();
  private mend: (() => void) | undefined;

  private constructor(
    private readonly server: Server,
    private readonly target: { host: string; port: number },
    /** The database's URL through the proxy. */
    readonly url: string,
  ) {
    server.on('connection', (client) => void this.carry(client));
  }

  static async start(databaseUrl: string): Promise<DatabaseProxy> {
    const url = new URL(databaseUrl);
    const target = { host: url.hostname, port: Number(url.port) };
    const server = createServer({ allowHalfOpen: true }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    url.port = String((server.address() as AddressInfo).port);
    return new DatabaseProxy(server, target, url.href);
  }

  /** From now on nothing passes and nobody is notified: connections hang, new ones as well. */
  cut(): void {
    if (this.mend !== undefined) return;
    this.whole = new Promise((resolve) => (this.mend = resolve));
  }

  /** Ends all faults. The delayed data arrives. */
  heal(): void {
    this.delayMs = 0;
    this.lostAnswers = 0;
    this.swallowed = undefined;
    this.mend?.();
    this.mend = undefined;
  }

  async close(): Promise<void> {
    this.heal();
    for (const socket of this.sockets) socket.destroy();
    this.server.close();
    await once(this.server, 'close');
  }

  private async carry(client: Socket): Promise<void> {
    this.keep(client);
    await this.whole;
    const upstream = connect({ ...this.target, allowHalfOpen: true });
    this.keep(upstream);
    let isLosing = false;
    const toServer = this.pump(client, upstream, (chunk) => {
      isLosing ||= commits(chunk) && Math.random() < this.lostAnswers;
      return true;
    });
    const toClient = this.pump(upstream, client, () => !isLosing);
    await Promise.all([toServer, toClient]).catch(() => undefined);
    if (isLosing) this.lost += 1;
    client.destroy();
    upstream.destroy();
  }

  /** Forwards chunks in order while `mayPass` allows it, and otherwise ends both sockets. */
  private async pump(from: Socket, to: Socket, mayPass: (chunk: Buffer) => boolean): Promise<void> {
    try {
      for await (const chunk of from as AsyncIterable<Buffer>) {
        if (this.swallowed !== undefined && chunk.includes(this.swallowed)) continue;
        const passes = mayPass(chunk);
        if (this.delayMs > 0) await sleep(this.delayMs);
        await this.whole;
        if (!passes) throw new Error('the answer is lost');
        to.write(chunk);
      }
      await this.whole;
      to.end();
    } catch (error) {
      from.destroy();
      to.destroy();
      throw error;
    }
  }

  private keep(socket: Socket): void {
    this.sockets.add(socket);
    // The code that reads or writes gets the error.
    socket.on('error', () => undefined);
    socket.on('close', () => this.sockets.delete(socket));
    socket.setTimeout(PATIENCE_MS * 10, () => socket.destroy());
  }
}
