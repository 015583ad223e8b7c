import { constants } from 'node:os';
import { CommanderError } from 'commander';
import { codeOf, EXIT, exitCodeOf } from './exit-codes.js';
import { makeProgram } from './program.js';

/*
 * The program `rowmq`. It sets the exit code and lets the process end by itself, so that a pipe
 * gets everything.
 */

const { program, session } = makeProgram(process.env);

/**
 * The reader of a pipe may go first, as `head` does. That is no error. A command that has to clean
 * up, such as `tail --topic`, does so before it ends.
 */
let isReaderGone = false;
for (const stream of [process.stdout, process.stderr])
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
    if (!isReaderGone && !session().interrupt()) process.exit(EXIT.done);
    isReaderGone = true;
  });

/** The exit code of a command that was stopped, as shells give it: 130 for Ctrl-C. */
let stopped: number = EXIT.interrupted;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
  process.on(signal, () => {
    stopped = 128 + constants.signals[signal];
    if (!session().interrupt()) process.exit(stopped);
  });

try {
  await program.parseAsync(process.argv);
} catch (error) {
  fail(error);
} finally {
  await session().close();
}

function fail(error: unknown): void {
  if (isReaderGone) return;
  if (error instanceof CommanderError) {
    // Commander has printed its message, or the help that was asked for.
    process.exitCode = error.exitCode === 0 ? EXIT.done : EXIT.usage;
    return;
  }
  const exitCode = exitCodeOf(error);
  process.exitCode = exitCode === EXIT.interrupted ? stopped : exitCode;
  const message = error instanceof Error ? error.message : String(error);
  if (message === '') return;
  session().out.failure(codeOf(error), message);
}
