import { ConsoleLogger, Logger } from '@nestjs/common';
import { SettingsError, unknownSettings } from './settings.js';

/** What Nest tells of every route and module at every start. */
const CHATTER = new Set(['InstanceLoader', 'RouterExplorer', 'RoutesResolver', 'NestFactory', 'NestApplication']);

class QuietLogger extends ConsoleLogger {
  /** The prefix is in the lines for people only; where several processes share a log, programs want it too. */
  protected override getJsonLogObject(
    ...record: Parameters<ConsoleLogger['getJsonLogObject']>
  ): ReturnType<ConsoleLogger['getJsonLogObject']> {
    return { ...super.getJsonLogObject(...record), process: this.options.prefix };
  }

  override log(message: unknown, ...rest: unknown[]): void {
    if (!CHATTER.has(rest.at(-1) as string)) super.log(message, ...(rest as string[]));
  }
}

/** One JSON line per event where a program reads the log, colours where a person does. */
export function createLogger(prefix: string): ConsoleLogger {
  return new QuietLogger({ prefix, json: !process.stdout.isTTY, logLevels: ['log', 'warn', 'error', 'fatal'] });
}

/** What a process runs. */
export interface Started {
  /** A Nest application, or whatever else is closed in order. */
  app: { close(): Promise<void> };
  /** Time for a stop, after which the process ends all the same. */
  stopSeconds: number;
  /** Ends what `app` started at once: when the process ends without waiting for it. */
  kill?: () => void;
  /** Several of its kind serve one port, and another process of ours runs them: that one decides whether a stop that was begun is cut short. */
  isWorker?: boolean;
}

/**
 * Runs an application as a process: starts it, tells a parent process `ready`, and stops it in order on SIGTERM, SIGINT or when the parent is gone. Stopping takes at most
 * `stopSeconds`; a second signal ends it at once. A failure to start is one clear message and exit code 1.
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
  for (const setting of unknownSettings(process.env)) logger.warn(`${setting} is not a setting of RowMQ; misspelt?`);
}

/** What a failure to start says: one message where it tells all, else with the stack. */
function explain(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error instanceof SettingsError || error.name === 'StartupError') return error.message;
  // `bind` is what a worker says, for whom its primary listens.
  if (['listen', 'bind'].includes((error as NodeJS.ErrnoException).syscall ?? ''))
    return `Cannot listen: ${error.message}. Stop what uses the address, or set ROWMQ_HOST and ROWMQ_PORT to another.`;
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
      // Ctrl-C in a terminal reaches a worker, and so does what its primary makes of it: that is one request.
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
  // Only a child started with a channel ever gets this: its parent died and nobody else would end it.
  process.on('disconnect', () => void stop('the parent process is gone'));
}
