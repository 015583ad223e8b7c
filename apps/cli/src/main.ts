import { CommanderError } from 'commander';
import { codeOf, EXIT, exitCodeOf } from './exit-codes.js';
import { inert, inertJson } from './output/inert.js';
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

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
  process.on(signal, () => {
    if (!session().interrupt()) process.exit(EXIT.interrupted);
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
  process.exitCode = exitCodeOf(error);
  const message = error instanceof Error ? error.message : String(error);
  if (message === '') return;
  if (session().out.json) process.stderr.write(`${inertJson({ error: { code: codeOf(error), message } })}\n`);
  else process.stderr.write(`rowmq: ${inert(message)}\n`);
}
