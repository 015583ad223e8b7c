import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterEach, describe, expect, test } from 'vitest';
import { untilReady } from './child-process.js';

const children: ChildProcess[] = [];
const STOP_SECONDS = 20;
const never = new AbortController().signal;

afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});

/** A process that says `up` once it has run the code, and then lives until its channel closes. */
async function startChild(code: string): Promise<ChildProcess> {
  const whole = `${code}; process.on('disconnect', () => process.exit(0)); process.send('up');`;
  const child = spawn(process.execPath, ['-e', whole], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  children.push(child);
  expect(await once(child, 'message')).toContain('up');
  return child;
}

/** Stops in order when it is asked to, which the exit code tells. */
const ORDERLY = `process.on('SIGTERM', () => process.exit(7))`;

describe('a child', () => {
  test('runs once it says that it is ready, and stops in order', async () => {
    const child = await startChild(`${ORDERLY}; process.on('message', () => process.send('ready'))`);
    const starting = untilReady('child', child, STOP_SECONDS, never);
    child.send('go on');
    const running = await starting;
    expect(running.pid).toBe(child.pid);
    await running.stop();
    expect(await running.exited).toBe('exit code 7');
  });

  test('that ends before it is ready fails the start, with its exit code', async () => {
    const child = await startChild(`process.on('message', () => process.exit(3))`);
    const starting = untilReady('child', child, STOP_SECONDS, never);
    child.send('go on');
    await expect(starting).rejects.toThrow('The child did not start: exit code 3.');
  });

  test('that is not ready in time is stopped in order, and gone before the start fails', async () => {
    const child = await startChild(ORDERLY);
    await expect(untilReady('child', child, STOP_SECONDS, never, 100)).rejects.toThrow(
      'The child did not start: it was not ready within 0.1 s.',
    );
    expect(child.exitCode).toBe(7);
  });

  test('whose start is cancelled is stopped in order, and gone before the start fails', async () => {
    const child = await startChild(ORDERLY);
    await expect(untilReady('child', child, STOP_SECONDS, AbortSignal.abort(new Error('given up')))).rejects.toThrow(
      'given up',
    );
    expect(child.exitCode).toBe(7);
  });

  test('that cannot be run fails the start, with the reason', async () => {
    const child = spawn('/nonexistent/program', { stdio: ['ignore', 'ignore', 'ignore', 'ipc'] });
    await expect(untilReady('child', child, STOP_SECONDS, never)).rejects.toThrow(/did not start: .*ENOENT/);
  });
});
