import { BrokerUnreachableError, RowmqError } from '@rowmq/client/core';

/** How a command ends. `docs/command-line.md` lists the same. */
export const EXIT = {
  /** Done. */
  done: 0,
  /** The broker refused, or a part of the command failed, or the doctor found a fault. */
  failed: 1,
  /** The command line or the configuration is wrong. Nothing was sent. */
  usage: 2,
  /** No broker or no database answered. */
  unreachable: 3,
  /** There was nothing to get, such as a message in `receive`. */
  nothing: 4,
  /** Stopped before its end, with Ctrl-C. Other signals have codes of their own. */
  interrupted: 130,
} as const;

/** The command line or the configuration is wrong. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** A command ends with this code. Its message is for people; an empty one says nothing more. */
export class CommandFailed extends Error {
  override readonly name = 'CommandFailed';

  constructor(
    message: string,
    readonly exitCode: number = EXIT.failed,
    readonly code = 'failed',
  ) {
    super(message);
  }
}

/** The same failure, with a sentence that says what is left to do. */
export function advised(error: unknown, advice: string): CommandFailed {
  const message = error instanceof Error ? error.message : String(error);
  return new CommandFailed(`${message.replace(/[^.!?]$/, '$&.')} ${advice}`, exitCodeOf(error), codeOf(error));
}

/** The exit code of a command that threw. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof CommandFailed) return error.exitCode;
  if (error instanceof UsageError) return EXIT.usage;
  if (error instanceof BrokerUnreachableError) return EXIT.unreachable;
  return EXIT.failed;
}

/** The code by which scripts decide, beside the exit code. */
export function codeOf(error: unknown): string {
  if (error instanceof CommandFailed) return error.code;
  if (error instanceof RowmqError) return error.code;
  if (error instanceof BrokerUnreachableError) return 'unreachable';
  if (error instanceof UsageError) return 'usage';
  return 'failed';
}
