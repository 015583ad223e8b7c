import type { ChildProcess } from 'node:child_process';
import type { Running } from './supervisor.js';

const READY_DEADLINE_MS = 60_000;
/** A process of RowMQ ends within its own deadline. After this grace period it is killed. */
const STOP_GRACE_MS = 5_000;

/**
 * A child did not start. It has written the reason itself, so this error is shown without a stack.
 */
class StartupError extends Error {
  override readonly name = 'StartupError';
}

/**
 * Waits until a forked process of RowMQ says `ready` over its IPC channel. The process stops when
 * the channel closes, so it does not outlive a parent that was killed.
 * @param stopSeconds the process's own deadline for a stop; a little later it is killed
 * @throws StartupError if it ends or the deadline passes before it is ready; it is gone by then
 */
export async function untilReady(
  name: string,
  child: ChildProcess,
  stopSeconds: number,
  signal: AbortSignal,
  readyMs = READY_DEADLINE_MS,
): Promise<Running> {
  const exited = new Promise<string>((done) => {
    child.once('error', (error) => child.pid === undefined && done(error.message));
    child.once('exit', (code, killedBy) => done(killedBy ?? `exit code ${code}`));
  });
  const kill = async () => {
    child.kill('SIGKILL');
    await exited;
  };
  const stop = async () => {
    child.kill('SIGTERM');
    const killer = setTimeout(() => child.kill('SIGKILL'), stopSeconds * 1000 + STOP_GRACE_MS);
    await exited;
    clearTimeout(killer);
  };

  const outcome = await firstOutcome(child, exited, signal, readyMs);
  if (outcome === 'ready') return { pid: child.pid!, exited, stop, kill };
  // It may have started other processes, which only an ordered stop ends.
  await stop();
  signal.throwIfAborted();
  throw new StartupError(`The ${name} did not start: ${outcome}.`);
}

/** `ready`, `aborted`, or the reason of the failure in words. */
async function firstOutcome(
  child: ChildProcess,
  exited: Promise<string>,
  signal: AbortSignal,
  readyMs: number,
): Promise<string> {
  let timer: NodeJS.Timeout | undefined;
  let abort: (() => void) | undefined;
  try {
    return await Promise.race([
      exited,
      new Promise<string>((done) => child.on('message', (message) => message === 'ready' && done('ready'))),
      new Promise<string>((done) => {
        abort = () => done('aborted');
        if (signal.aborted) abort();
        signal.addEventListener('abort', abort);
        timer = setTimeout(() => done(`it was not ready within ${readyMs / 1000} s`), readyMs);
      }),
    ]);
  } finally {
    clearTimeout(timer);
    if (abort) signal.removeEventListener('abort', abort);
  }
}
