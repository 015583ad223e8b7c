import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { identifyProcess, isRunning, terminateProcess } from '@rowmq/mysql-server';
import { z } from 'zod';

const STOP_DEADLINE_MS = 15_000;
const schema = z.array(z.object({ name: z.string(), pid: z.number(), startedAt: z.string() }));
type Entry = z.infer<typeof schema>[number];

/**
 * Remembers in a file which children run, so that the next start can end what a killed launcher
 * left behind. The children also end by themselves then, but may take a while to drain, and still
 * hold the port.
 */
export class ChildRecord {
  private readonly entries = new Map<string, Entry>();
  private writing: Promise<void> = Promise.resolve();

  constructor(
    private readonly file: string,
    private readonly log: (line: string) => void,
  ) {}

  /**
   * Ends the children of an earlier run that still run. Call only while holding the lock of the
   * data folder.
   */
  async endLeftOver(): Promise<void> {
    for (const child of await this.read()) {
      if (!(await isRunning(child))) continue;
      this.log(`Ending the ${child.name} (process ${child.pid}) that an earlier run left behind …`);
      await terminateProcess(child, STOP_DEADLINE_MS);
    }
  }

  /**
   * Notes the process that now runs under this name. Never rejects: that it cannot be written down
   * is told, and is no reason to end the process.
   */
  async note(name: string, pid: number): Promise<void> {
    const identity = await identifyProcess(pid);
    if (identity === undefined) return;
    this.entries.set(name, { name, ...identity });
    this.writing = this.writing
      .then(() => this.write())
      .catch((error: unknown) =>
        this.log(
          `Could not note the ${name} (process ${pid}) in ${this.file}: ${error instanceof Error ? error.message : String(error)}`,
        ),
      );
    await this.writing;
  }

  private async read(): Promise<Entry[]> {
    const text = await readFile(this.file, 'utf8').catch(() => '[]');
    try {
      return schema.parse(JSON.parse(text));
    } catch {
      // A loss of power leaves such a file. It ended the children, too.
      this.log(`Left out the list of processes in ${this.file}, which cannot be read.`);
      return [];
    }
  }

  private async write(): Promise<void> {
    await mkdir(dirname(this.file), { recursive: true });
    await writeFile(`${this.file}.new`, JSON.stringify([...this.entries.values()]));
    await rename(`${this.file}.new`, this.file);
  }
}
