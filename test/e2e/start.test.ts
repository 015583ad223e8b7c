import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { isRunning } from '@rowmq/mysql-server';
import { describe, expect, test } from 'vitest';
import { useStart } from '../support/start.js';

const run = promisify(execFile);
const SLOW = 600_000;

/* npm start on every kind of server; start-recovery.test.ts kills its processes. */

const { launch, running } = useStart('npm start');

describe('npm start', { timeout: SLOW }, () => {
  test('initialises its database, runs everything, and prints commands that work', async () => {
    const rowmq = await running();
    expect(rowmq.output).toContain('Initialising');
    expect(rowmq.output).toContain(`${rowmq.address}/docs`);
    const commands = rowmq.output.match(/^ {2}(?:curl|answer=).*$/gm) ?? [];
    expect(commands).toHaveLength(3);
    const { stdout } = await run('bash', ['-euc', commands.join('\n')], { timeout: 90_000 });
    expect(stdout).toMatch(/"body":"hello"[^]*"acked":\["[^"]+"\],"failed":\[\]/);
  });

  test('leaves no process behind when asked to stop, and finds its messages at the next start, without an initialisation', async () => {
    const first = await running();
    const id = await first.enqueue('before the stop');
    const processes = await first.processes();
    expect(processes).toHaveLength(4);
    first.signal('SIGTERM');
    expect(await first.exited).toEqual({ code: 0, signal: null });
    expect(await Promise.all(processes.map((one) => isRunning(one)))).toEqual([false, false, false, false]);
    expect(await first.servers()).toEqual([]);

    const second = await launch().ready();
    expect(second.output).not.toContain('Initialising');
    expect(await second.waiting()).toContain(id);
  });
});
