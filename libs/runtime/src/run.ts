import { ConsoleLogger, Logger } from '@nestjs/common';
import { SettingsError, unknownSettings } from './settings.js';

/** Loggers of Nest that list every route and module at every start. */
const CHATTER = new Set(['InstanceLoader', 'RouterExplorer', 'RoutesResolver', 'NestFactory', 'NestApplication']);

class QuietLogger extends ConsoleLogger {
  /**
   * Nest puts the prefix in lines for people only. Programs need it too if several processes share
   * a log.
   */
  protected override getJsonLogObject(
    ...record: Parameters<ConsoleLogger['getJsonLogObject']>
  ): ReturnType<ConsoleLogger['getJsonLogObject']> {
    return { ...super.getJsonLogObject(...record), process: this.options.prefix };
  }

  override log(message: unknown, ...rest: unknown[]): void {
    if (!CHATTER.has(rest.at(-1) as string)) super.log(message, ...(rest as string[]));
  }
}

/** Writes one JSON line for each event, or colours on a terminal. */
export function createLogger(prefix: string): ConsoleLogger {
  return new QuietLogger({ prefix, json: !process.stdout.isTTY, logLevels: ['log', 'warn', 'error', 'fatal'] });
}

/** The application of a process. */
export interface Started {
  /** A Nest application, or another object that is closed in order. */
  app: { close(): Promise<void> };
  /** The process ends this long after the beginning of a stop, finished or not. */
  stopSeconds: number;
  /**
   * Ends the processes that `app` started. Called when the process ends without waiting for `app`.
   */
  kill?: () => void;
  /**
   * It is one of several processes behind one port. Their primary decides whether to cut a stop
   * short.
   */
  isWorker?: boolean;
}

/**
 * Runs an application as a process. It starts the application and tells a parent process `ready`.
 * On SIGTERM, on SIGINT or when the parent is gone, it stops the application. A stop takes at most
 * `stopSeconds`, and a second signal ends it at once. A failed start is one message and exit code
 * 1.
 */
export async function runProcess(name: string, start: () => Promise<Started>): Promise<void> {
  const logger = new Logger(name);
  try {
    const started = await start();
    if (started.isWorker !== true) warnOfUnknownSettings(logger);
    stopOnSignal(started, logger);
    process.send?.('ready');
  } catch (error) {
    process.stderr.write(`rowmq ${name}: ${explain(error)}\n`);
    process.exit(1);
  }
}

function warnOfUnknownSettings(logger: Logger): void {
  for (const setting of unknownSettings(process.env))
    logger.warn(`${setting} is not a setting of RowMQ. docs/operations.md lists the settings.`);
}

/** The message of a failed start, with the stack if the message alone does not explain it. */
function explain(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error instanceof SettingsError || error.name === 'StartupError') return error.message;
  if ((error as NodeJS.ErrnoException).syscall === 'listen')
    return `Cannot listen: ${error.message}. Stop the program that uses the address, or set ROWMQ_HOST and ROWMQ_PORT to another.`;
  return error.stack ?? error.message;
}

function stopOnSignal({ app, stopSeconds, kill, isWorker }: Started, logger: Logger): void {
  let stopping = false;
  const end = (code: number): never => {
    kill?.();
    process.exit(code);
  };
  const stop = async (reason: string): Promise<void> => {
    if (stopping) {
      // Ctrl-C in a terminal reaches a worker twice, also through its primary. That is one request.
      if (isWorker === true) return;
      end(130);
    }
    stopping = true;
    logger.log(`stopping: ${reason}`);
    setTimeout(() => {
      logger.error(`could not stop within ${stopSeconds} s; ending`);
      end(1);
    }, stopSeconds * 1000).unref();
    try {
      await app.close();
      process.exit(0);
    } catch (error) {
      logger.error(error);
      end(1);
    }
  };
  process.on('SIGTERM', () => void stop('SIGTERM'));
  process.on('SIGINT', () => void stop('SIGINT'));
  // Only a child with an IPC channel gets this event. Its parent died, and nobody else would end
  // it.
  process.on('disconnect', () => void stop('the parent process is gone'));
}
