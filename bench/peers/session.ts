import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Plan } from './client.js';
import { cpuTimes } from './cpu.js';
import type { StretchResult } from './load.js';
import type { Peer, PeerServer, StretchKind } from './peer.js';
import type { Reply, Request } from './serve.js';
import { stopProcess } from './servers/server-process.js';

const CLIENT = fileURLToPath(new URL('client.mjs', import.meta.url));
const STEADY_RATE = 200;

/** The differences between the kinds of stretches. They are the same for all peers. */
const LOADS: Record<StretchKind, { batch: number; outstanding: number }> = {
  batch: { batch: 100, outstanding: 4000 },
  single: { batch: 1, outstanding: 1000 },
  // A consumer that fetches takes up to ten of the messages that are there.
  steady: { batch: 10, outstanding: Number.MAX_SAFE_INTEGER },
};

/** Length of a stretch, and size of its messages. */
export interface StretchOptions {
  warmUpSeconds: number;
  seconds: number;
  bodyBytes: number;
}

/** One stretch with its costs. */
export interface Measured extends StretchResult {
  /** CPU time a message, µs, by process: the servers' and `client`. */
  cpuPerMessage: Record<string, number>;
}

/**
 * A peer's server with a client process beside it. The server can be reached at `address` between
 * `open` and `close`. `bench:snapshot` uses that to hold a snapshot while a stretch runs.
 */
export class PeerSession {
  private stretches = 0;

  private constructor(
    private readonly peer: Peer,
    private readonly server: PeerServer,
    private readonly client: ChildProcess & { pid: number },
    private readonly signal?: AbortSignal,
  ) {}

  get version(): string {
    return this.server.version;
  }

  get address(): string {
    return this.server.address;
  }

  /**
   * Starts both. Throws `PeerUnavailableError` if the server is not installed.
   * @param signal ends the work in hand with an error; the caller then calls `abandon`
   */
  static async open(peer: Peer, signal?: AbortSignal): Promise<PeerSession> {
    const server = await peer.start();
    let client: ChildProcess | undefined;
    try {
      signal?.throwIfAborted();
      client = fork(CLIENT, [peer.client], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
      if (client.pid === undefined) throw new Error(`the client of ${peer.name} did not start`);
      const session = new PeerSession(peer, server, client as ChildProcess & { pid: number }, signal);
      await session.ask({ ask: 'connect', address: server.address, options: peer.clientOptions ?? {} });
      return session;
    } catch (error) {
      if (client !== undefined) await stopProcess(client);
      await server.stop();
      throw error;
    }
  }

  /** Measures one stretch on a new queue. Throws if a message was lost, doubled or changed. */
  async stretch(kind: StretchKind, options: StretchOptions): Promise<Measured> {
    const hands = this.peer.stretches[kind];
    if (hands === undefined) throw new Error(`${this.peer.name} is not measured in ${kind}`);
    this.stretches += 1;
    const queue = `bench-${kind}-${this.stretches}`;
    const plan: Plan = { kind, queue, ...hands, ...LOADS[kind], ...options, messagesPerSecond: STEADY_RATE };
    const pids = { ...this.server.pids, client: this.client.pid };
    const readings: Promise<Record<string, number>>[] = [];
    const result = await this.ask({ ask: 'stretch', plan }, () => readings.push(cpuTimes(pids)));
    const [before, after] = await Promise.all(readings);
    if (result === undefined || before === undefined || after === undefined) throw new Error('the client said nothing');
    const cpuPerMessage = Object.fromEntries(
      Object.keys(pids).map((name) => [name, ((after[name] ?? 0) - (before[name] ?? 0)) / result.messages]),
    );
    return { ...result, cpuPerMessage };
  }

  /** Stops both in order. */
  async close(): Promise<void> {
    try {
      await this.ask({ ask: 'close' });
    } finally {
      await this.abandon();
    }
  }

  /** Stops both at once. */
  async abandon(): Promise<void> {
    await stopProcess(this.client, 'SIGKILL');
    await this.server.stop();
  }

  private async ask(request: Request, onMark?: () => void): Promise<StretchResult | undefined> {
    return new Promise((resolve, reject) => {
      const settle = (finish: () => void): void => {
        this.client.off('message', onReply);
        this.client.off('exit', onExit);
        this.signal?.removeEventListener('abort', onAbort);
        finish();
      };
      const onExit = (): void => settle(() => reject(new Error(`the client of ${this.peer.name} ended`)));
      const onAbort = (): void => settle(() => reject(new Error('interrupted')));
      const onReply = (reply: Reply): void => {
        if (reply.say === 'mark') onMark?.();
        else if (reply.say === 'done') settle(() => resolve(reply.result));
        else settle(() => reject(new Error(`${this.peer.name}: ${reply.error}`)));
      };
      this.client.on('message', onReply);
      this.client.once('exit', onExit);
      this.signal?.addEventListener('abort', onAbort);
      this.client.send(request);
    });
  }
}
