import { ConsoleLogger, type INestApplicationContext, Logger } from '@nestjs/common';
import { SettingsError, unknownSettings } from './settings.js';

/** What Nest tells of every route and module at every start. */
const CHATTER = new Set(['InstanceLoader', 'RouterExplorer', 'RoutesResolver', 'NestFactory', 'NestApplication']);

class QuietLogger extends ConsoleLogger {
  override log(message: unknown, ...rest: unknown[]): void {
    if (!CHATTER.has(rest.at(-1) as string)) super.log(message, ...(rest as string[]));
  }
}

/** One JSON line per event where a program reads the log, colours where a person does. */
export function createLogger(prefix: string): ConsoleLogger {
  return new QuietLogger({ prefix, json: !process.stdout.isTTY, logLevels: ['log', 'warn', 'error', 'fatal'] });
}

/**
 * Runs a Nest application as a process: starts it, tells a parent process `ready`, and stops it in order on SIGTERM, SIGINT or when the parent is gone. Stopping takes at most
 * `stopSeconds`; a second signal ends it at once. A failure to start is one clear message and exit code 1.
 */
export async function runProcess(
  name: string,
  start: () => Promise<{ app: INestApplicationContext; stopSeconds: number }>,
): Promise<void> {
  const logger = new Logger(name);
  try {
    const { app, stopSeconds } = await start();
    for (const setting of unknownSettings(process.env)) logger.warn(`${setting} is not a setting of RowMQ; misspelt?`);
    stopOnSignal(app, stopSeconds, logger);
    process.send?.('ready');
  } catch (error) {
    process.stderr.write(`rowmq ${name}: ${explain(error)}\n`);
    process.exit(1);
  }
}

/** What a failure to start says: one message where it tells all, else with the stack. */
function explain(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error instanceof SettingsError || error.name === 'StartupError') return error.message;
  if ((error as NodeJS.ErrnoException).syscall === 'listen')
    return `Cannot listen: ${error.message}. Stop what uses the address, or set ROWMQ_HOST and ROWMQ_PORT to another.`;
  return error.stack ?? error.message;
}

function stopOnSignal(app: INestApplicationContext, stopSeconds: number, logger: Logger): void {
  let stopping = false;
  const stop = async (reason: string): Promise<void> => {
    if (stopping) process.exit(130);
    stopping = true;
    logger.log(`stopping: ${reason}`);
    setTimeout(() => {
      logger.error(`could not stop within ${stopSeconds} s; ending`);
      process.exit(1);
    }, stopSeconds * 1000).unref();
    try {
      await app.close();
      process.exit(0);
    } catch (error) {
      logger.error(error);
      process.exit(1);
    }
  };
  process.on('SIGTERM', () => void stop('SIGTERM'));
  process.on('SIGINT', () => void stop('SIGINT'));
  // Only a child started with a channel ever gets this: its parent died and nobody else would end it.
  process.on('disconnect', () => void stop('the parent process is gone'));
}
