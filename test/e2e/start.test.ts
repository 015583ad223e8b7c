import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { isRunning } from '@rowmq/mysql-server';
import { describe, expect, test } from 'vitest';
import { useStart } from '../support/start.js';

const run = promisify(execFile);
const SLOW = 600_000;

/* npm start on every kind of server; start-recovery.test.ts kills its processes. */

const launch = useStart();

describe('npm start', { timeout: SLOW }, () => {
  test('runs everything, prints commands that work, and leaves no process behind when asked to stop', async () => {
    const rowmq = await launch().ready();
    expect(rowmq.output).toContain(`${rowmq.address}/docs`);
    const commands = rowmq.output.match(/^ {2}(?:curl|answer=).*$/gm) ?? [];
    expect(commands).toHaveLength(3);
    const { stdout } = await run('bash', ['-euc', commands.join('\n')], { timeout: 30_000 });
    expect(stdout).toMatch(/"body":"hello"[^]*"acked":\["[^"]+"\],"failed":\[\]/);

    const processes = await rowmq.processes();
    expect(processes).toHaveLength(4);
    rowmq.signal('SIGTERM');
    expect(await rowmq.exited).toEqual({ code: 0, signal: null });
    expect(await Promise.all(processes.map((one) => isRunning(one)))).toEqual([false, false, false, false]);
    expect(await rowmq.servers()).toEqual([]);
  });

  test('finds the messages from before a stop, and initialises nothing again', async () => {
    const first = await launch().ready();
    const id = await first.enqueue('before the stop');
    first.signal('SIGTERM');
    await first.exited;

    const second = await launch().ready();
    expect(second.output).not.toContain('Initialising');
    expect(await second.waiting()).toContain(id);
  });
});
