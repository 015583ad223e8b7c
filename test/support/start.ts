import { type ChildProcess, spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { vi } from 'vitest';
import { type ServerKind, findProcessesByArgument, identifyProcess, isRunning } from '@rowmq/mysql-server';

const root = fileURLToPath(new URL('../..', import.meta.url));
const READY_MS = 240_000;

/** What `npm start` runs, as a process of its own on a data folder and port of its own. */
export class StartedRowmq {
  /** Everything it printed so far. */
  output = '';
  /** Resolves with how the launcher ended. */
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  private readonly launcher: ChildProcess;

  /** Starts it without waiting for anything. */
  constructor(
    readonly kind: ServerKind,
    readonly dataDir: string,
    readonly port: number,
  ) {
    const { ROWMQ_SERVERS_DIR: serversDir = join(root, '.rowmq-test', 'servers'), ...environment } = process.env;
    this.launcher = spawn(process.execPath, [join(root, 'scripts', 'start.mjs')], {
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
      // A process group of its own, as a terminal gives it.
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

  /** Waits until it says that it runs. */
  async ready(): Promise<this> {
    let ended = false;
    void this.exited.then(() => (ended = true));
    await vi.waitUntil(() => ended || this.output.includes('RowMQ is running.'), { timeout: READY_MS, interval: 100 });
    if (ended) throw new Error(`npm start ended instead of becoming ready:\n${this.output}`);
    return this;
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
    const launcher = await identifyProcess(this.launcher.pid!);
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

  /** Ends whatever still runs, for clean-up after a test. */
  async killAll(): Promise<void> {
    for (const { pid } of await this.processes()) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It ended by itself meanwhile.
      }
    }
    await this.exited;
  }
}
