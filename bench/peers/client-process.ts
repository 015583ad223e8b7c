import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Peer } from './peer.js';
import type { Done, Reply, Request } from './serve.js';
import { stopProcess } from './servers/server-process.js';

const CLIENT = fileURLToPath(new URL('client.mjs', import.meta.url));

/** A process with a peer's client in it. It answers one request at a time. */
export class ClientProcess {
  private constructor(
    private readonly name: string,
    private readonly child: ChildProcess & { pid: number },
    private readonly signal?: AbortSignal,
  ) {}

  get pid(): number {
    return this.child.pid;
  }

  /** @param signal ends the request in hand with an error */
  static async start(peer: Peer, address: string, signal?: AbortSignal): Promise<ClientProcess> {
    // Flags of this process, such as a test runner's, are not for the client.
    const child = fork(CLIENT, [peer.client], { execArgv: [], stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    if (child.pid === undefined) throw new Error(`the client of ${peer.name} did not start`);
    const client = new ClientProcess(peer.name, child as ChildProcess & { pid: number }, signal);
    try {
      await client.ask({ ask: 'connect', address, options: peer.clientOptions ?? {} });
      return client;
    } catch (error) {
      await client.kill();
      throw error;
    }
  }

  /** Throws if the process cannot do it. */
  async ask(request: Request, onMark?: () => void): Promise<Done> {
    return new Promise((resolve, reject) => {
      const settle = (finish: () => void): void => {
        this.child.off('message', onReply);
        this.child.off('exit', onExit);
        this.signal?.removeEventListener('abort', onAbort);
        finish();
      };
      const onExit = (): void => settle(() => reject(new Error(`the client of ${this.name} ended`)));
      const onAbort = (): void => settle(() => reject(new Error('interrupted')));
      const onReply = (reply: Reply): void => {
        if (reply.say === 'mark') onMark?.();
        else if (reply.say === 'done') settle(() => resolve(reply));
        else settle(() => reject(new Error(`${this.name}: ${reply.error}`)));
      };
      this.child.on('message', onReply);
      this.child.once('exit', onExit);
      this.signal?.addEventListener('abort', onAbort);
      this.child.send(request);
    });
  }

  /** Ends it in order. */
  async close(): Promise<void> {
    try {
      await this.ask({ ask: 'close' });
    } finally {
      await this.kill();
    }
  }

  async kill(): Promise<void> {
    await stopProcess(this.child, 'SIGKILL');
  }
}
