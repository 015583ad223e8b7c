import { readdir, readFile, readlink } from 'node:fs/promises';
import type { AddressInfo, Socket } from 'node:net';
import { buildConnector, Client, request } from 'undici';
import { type Answer, Api } from './api.js';
import type { Broker } from './processes.js';

/**
 * A client with one connection. All its requests go to one worker for as long as the worker lives.
 */
export class OneConnection extends Api {
  private socket: Socket | undefined;
  private readonly client: Client;

  constructor(private readonly broker: Pick<Broker, 'pid' | 'url'>) {
    super(broker.url);
    const connect = buildConnector({});
    this.client = new Client(broker.url, {
      keepAliveTimeout: 60_000,
      connect: (options, done) =>
        connect(options, (...result) => {
          this.socket = result[1] ?? undefined;
          done(...result);
        }),
    });
  }

  override async call<T = unknown>(method: string, path: string, body?: unknown): Promise<Answer<T>> {
    const answer = await request(`${this.url}${path}`, {
      method: method as 'GET',
      dispatcher: this.client,
      signal: AbortSignal.timeout(30_000),
      ...(body === undefined ? {} : { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
    });
    const text = await answer.body.text();
    const headers = new Headers(answer.headers as Record<string, string>);
    const isJson = /json/.test(headers.get('content-type') ?? '');
    return { status: answer.statusCode, headers, text, json: (isJson ? JSON.parse(text) : undefined) as T };
  }

  /** The process at the other end of the connection. */
  async worker(): Promise<number> {
    await this.get('/health/live');
    const { localPort, remotePort } = this.socket as Socket & { localPort: number; remotePort: number };
    const inode = await inodeOf(remotePort, localPort);
    for (const pid of await workersOf(this.broker)) if ((await socketsOf(pid)).has(inode)) return pid;
    throw new Error(`no worker has the connection from port ${localPort}`);
  }

  async close(): Promise<void> {
    await this.client.destroy();
  }
}

/** One client for each worker, each connected to another one. */
export async function oneConnectionEach(broker: Pick<Broker, 'pid' | 'url'>): Promise<OneConnection[]> {
  const count = (await workersOf(broker)).length;
  const clients = new Map<number, OneConnection>();
  for (let attempt = 0; clients.size < count; attempt += 1) {
    if (attempt > 10 * count) throw new Error(`${attempt} connections, and only ${clients.size} workers got any`);
    const client = new OneConnection(broker);
    const pid = await client.worker();
    if (clients.has(pid)) await client.close();
    else clients.set(pid, client);
  }
  return [...clients.values()];
}

/** Process ids of a broker's workers. */
export async function workersOf({ pid }: Pick<Broker, 'pid'>): Promise<number[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8').catch(() => '');
  return text.trim().split(' ').filter(Boolean).map(Number);
}

/** The process id of the worker with this number, if that runs. */
export async function workerNumbered(broker: Pick<Broker, 'pid'>, number: number): Promise<number | undefined> {
  for (const pid of await workersOf(broker)) {
    const commandLine = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (commandLine.endsWith(`\0worker\0${number}\0`)) return pid;
  }
  return undefined;
}

/** The kernel's number of the accepted end of a connection on loopback. */
async function inodeOf(serverPort: number, clientPort: number): Promise<string> {
  const hex = (port: AddressInfo['port']): string => port.toString(16).toUpperCase().padStart(4, '0');
  for (const line of (await readFile('/proc/net/tcp', 'utf8')).split('\n')) {
    const [, local, remote, , , , , , , inode] = line.trim().split(/\s+/);
    if (local?.endsWith(`:${hex(serverPort)}`) === true && remote?.endsWith(`:${hex(clientPort)}`) === true)
      return inode as string;
  }
  throw new Error(`no connection from port ${clientPort} to port ${serverPort}`);
}

async function socketsOf(pid: number): Promise<Set<string>> {
  const folder = `/proc/${pid}/fd`;
  const names = await readdir(folder).catch(() => []);
  const links = await Promise.all(names.map((name) => readlink(`${folder}/${name}`).catch(() => '')));
  return new Set(links.map((link) => /^socket:\[(\d+)\]$/.exec(link)?.[1] ?? ''));
}
