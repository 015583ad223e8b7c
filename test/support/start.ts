import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type ServerKind, findProcessesByArgument, freePort, identifyProcess, isRunning } from '@rowmq/mysql-server';
import { afterAll, afterEach, beforeAll, vi } from 'vitest';
import { copyFreshData } from './fresh-data.js';
import { serverProgram, testServer } from './servers.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const READY_MS = 240_000;
const RUNNING = 'RowMQ is running.';
const PROGRAMS = { 'npm start': 'scripts/start.mjs', launcher: 'tools/launcher/dist/main.js' } as const;
type Program = keyof typeof PROGRAMS;

/** `npm start`, or the launcher behind it, as a process with its own data folder and port. */
export class StartedRowmq {
  /** Its output so far. */
  output = '';
  /** Resolves with the end of the launcher. */
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  private readonly launcher: ChildProcess;

  /** Starts it without a wait. */
  constructor(
    readonly kind: ServerKind,
    readonly dataDir: string,
    readonly port: number,
    program: Program,
  ) {
    const { ROWMQ_SERVERS_DIR: serversDir = join(root, '.rowmq-test', 'servers'), ...environment } = process.env;
    this.launcher = spawn(process.execPath, [join(root, PROGRAMS[program])], {
      env: {
        ...environment,
        ROWMQ_SERVERS_DIR: serversDir,
        ROWMQ_DATABASE_URL: '',
        ROWMQ_ADMIN_KEY: '',
        ROWMQ_HOST: '',
        ROWMQ_EMBEDDED_SERVER: kind,
        ROWMQ_DATA_DIR: dataDir,
        ROWMQ_PORT: String(port),
        ROWMQ_BUFFER_POOL_MB: '128',
      },
      stdio: ['ignore', 'pipe', 'pipe'],
      // It has a process group of its own, as in a terminal.
      detached: true,
    });
    for (const stream of [this.launcher.stdout!, this.launcher.stderr!]) {
      stream.setEncoding('utf8').on('data', (text: string) => (this.output += text));
    }
    this.exited = new Promise((done) => this.launcher.once('close', (code, signal) => done({ code, signal })));
  }

  get address(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Whether the launcher has not ended. */
  get isRunning(): boolean {
    return this.launcher.exitCode === null && this.launcher.signalCode === null;
  }

  /** Waits until it reports that it runs. */
  async ready(): Promise<this> {
    let ended = false;
    void this.exited.then(() => (ended = true));
    await vi.waitUntil(() => ended || this.output.includes(RUNNING), { timeout: READY_MS, interval: 100 });
    if (ended) throw new Error(`npm start ended instead of becoming ready:\n${this.output}`);
    return this;
  }

  /** Enqueues one message into the queue `demo`, and returns its id. */
  async enqueue(body: string): Promise<string> {
    const answer = await this.post('messages', { messages: [{ body }] });
    return answer.messages[0]!.id;
  }

  /**
   * Ids of all messages that wait in `demo`. The lease lasts a second, so that the next call finds
   * them again.
   */
  async waiting(): Promise<string[]> {
    const answer = await this.post('messages/dequeue', { maxMessages: 100, leaseSeconds: 1, waitSeconds: 5 });
    return answer.messages.map((message) => message.id);
  }

  async isReady(): Promise<boolean> {
    const answer = await fetch(`${this.address}/health/ready`, { signal: AbortSignal.timeout(5_000) }).catch(
      () => undefined,
    );
    return answer?.ok === true;
  }

  /** Sends a signal to the launcher alone. */
  signal(name: NodeJS.Signals): void {
    this.launcher.kill(name);
  }

  /** Sends a signal to the launcher's process group, as Ctrl-C in a terminal does. */
  signalGroup(name: NodeJS.Signals): void {
    process.kill(-this.launcher.pid!, name);
  }

  /** Identities of all its processes: launcher, database, broker and reaper. */
  async processes() {
    // Another process may have the number of a launcher that has ended.
    const launcher = this.isRunning ? await identifyProcess(this.launcher.pid!) : undefined;
    const found = [...(launcher ? [launcher] : []), ...(await this.servers()), ...Object.values(await this.apps())];
    return found.map(({ pid, startedAt }) => ({ pid, startedAt }));
  }

  /** Database servers that run on the data folder. */
  async servers() {
    return findProcessesByArgument(`--datadir=${join(this.dataDir, this.kind, 'data')}`);
  }

  /** The app processes that run, as the launcher recorded them. */
  async apps(): Promise<Record<string, { pid: number; startedAt: string }>> {
    const text = await readFile(join(this.dataDir, this.kind, 'children.json'), 'utf8').catch(() => '[]');
    const entries: { name: string; pid: number; startedAt: string }[] = JSON.parse(text);
    const alive = await Promise.all(entries.map((entry) => isRunning(entry)));
    return Object.fromEntries(entries.filter((_, index) => alive[index]).map((entry) => [entry.name, entry]));
  }

  /** Ends every process that still runs, to clean up after a test. */
  async killAll(): Promise<void> {
    for (const { pid } of await this.processes()) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // The process ended by itself meanwhile.
      }
    }
    await this.exited;
  }

  private async post(path: string, body: unknown): Promise<{ messages: { id: string }[] }> {
    const answer = await fetch(`${this.address}/v1/queues/demo/${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(15_000),
    });
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
    return JSON.parse(await answer.text()) as { messages: { id: string }[] };
  }
}

/** How the tests of a file start RowMQ on their data folder. */
export interface Starts {
  /** Starts it without a wait. */
  launch: (port?: number) => StartedRowmq;
  /**
   * Returns what the test before left running, or starts it, and waits until it is ready. A start
   * takes 10 s of CPU.
   */
  running: () => Promise<StartedRowmq>;
}

/**
 * Gives the tests of a file one data folder and one port.
 * @param kind the kind of its database server
 * @param isInitialised whether the folder has initialised data from the beginning
 */
export function useStart(program: Program, { kind = testServer().kind, isInitialised = false } = {}): Starts {
  let dataDir: string;
  let port: number;
  const started: StartedRowmq[] = [];
  beforeAll(async () => {
    dataDir = await mkdtemp(join(tmpdir(), 'rowmq-start-'));
    if (isInitialised) await copyFreshData(await serverProgram(kind), dataDir);
    port = await freePort();
  });
  const killAll = () => Promise.all(started.splice(0).map((rowmq) => rowmq.killAll()));
  afterEach(async ({ task }) => {
    if (task.result?.state === 'fail') await killAll();
  });
  afterAll(async () => {
    await killAll();
    await rm(dataDir, { recursive: true, force: true });
  });
  const launch = (otherPort = port): StartedRowmq => {
    const rowmq = new StartedRowmq(kind, dataDir, otherPort, program);
    started.push(rowmq);
    return rowmq;
  };
  return {
    launch,
    running: async () => {
      const last = started.at(-1);
      return last?.isRunning === true && last.output.includes(RUNNING) ? last : launch().ready();
    },
  };
}
