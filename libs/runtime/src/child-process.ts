import type { ChildProcess } from 'node:child_process';
import type { Running } from './supervisor.js';

const READY_DEADLINE_MS = 60_000;
/** A process of ours ends by itself within its own time to stop; killed when it is this much later. */
const STOP_GRACE_MS = 5_000;

/** A child did not come up. It has said why itself, so that this is told without a stack. */
class StartupError extends Error {
  override readonly name = 'StartupError';
}

/**
 * Waits until a process of ours that was just forked says `ready` over its IPC channel. It stops by itself when the channel closes, so that
 * it does not outlive a parent that was killed.
 * @param stopSeconds what it gives itself for a stop; it is killed a little later
 * @throws StartupError when it ends, the deadline passes or the signal gives the start up first; it is gone by then
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
  // Not killed at once: it may have started others by now, which only an ordered stop takes down with it.
  await stop();
  signal.throwIfAborted();
  throw new StartupError(`The ${name} did not start: ${outcome}.`);
}

/** `ready`, `aborted`, or in words why neither. */
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
