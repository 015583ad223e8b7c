import { reason } from '@rowmq/runtime';
import { failureCode, isTrouble } from './database-errors.js';

/**
 * Trouble is over when nothing has failed for so long; what fails before that is still part of it.
 */
const QUIET_MS = 5000;
/** Between two lines about the primary. */
const MOVE_PAUSE_MS = 5000;
/** More than there are codes of failures that happen. */
const MOST_CODES = 50;

/** Where lines for people go: Nest's Logger is one. */
export interface HealthLog {
  log(line: string): void;
  warn(line: string): void;
}

/**
 * How the database is, as one process meets it. Says in its log when trouble begins, when it is
 * over and when another host has become the primary: a line each, and a few in ten seconds at most,
 * whatever the number of requests.
 */
export class DatabaseHealth {
  /** Tries that failed, by the driver's code; `other` for those without one, and beyond a bound. */
  readonly failures = new Map<string, number>();
  private trouble: { since: number; failures: number; ending: NodeJS.Timeout | undefined } | undefined;
  private primary: { told: string; now: string } | undefined;

  constructor(private readonly logger: HealthLog = { log: () => undefined, warn: () => undefined }) {}

  /** Whether the last that was heard of the database was an answer. */
  get isUp(): boolean {
    return this.trouble === undefined || this.trouble.ending !== undefined;
  }

  /** A try failed, for whatever reason. */
  failed(error: unknown): void {
    const code = failureCode(error);
    if (code === undefined) return;
    this.count(code);
    if (!isTrouble(error)) return;
    if (this.trouble === undefined) {
      this.trouble = { since: performance.now(), failures: 0, ending: undefined };
      this.logger.warn(`Trouble with the database: ${failureText(error)}. It is tried again.`);
    }
    clearTimeout(this.trouble.ending);
    this.trouble.ending = undefined;
    this.trouble.failures += 1;
  }

  /** The database answered. Called for every answer. */
  succeeded(): void {
    const { trouble } = this;
    if (trouble === undefined || trouble.ending !== undefined) return;
    const seconds = ((performance.now() - trouble.since) / 1000).toFixed(1);
    trouble.ending = setTimeout(() => {
      this.trouble = undefined;
      this.logger.log(
        `The database answers again: the trouble lasted ${seconds} s, in which ${trouble.failures} tries failed.`,
      );
    }, QUIET_MS).unref();
  }

  /** Another host has become the primary. */
  moved(host: string): void {
    if (this.primary !== undefined) {
      this.primary.now = host;
      return;
    }
    this.logger.log(`The primary is now ${host}.`);
    this.primary = { told: host, now: host };
    setTimeout(() => {
      const { told, now } = this.primary as { told: string; now: string };
      this.primary = undefined;
      if (now !== told) this.moved(now);
    }, MOVE_PAUSE_MS).unref();
  }

  private count(code: string): void {
    const known = this.failures.has(code) || this.failures.size < MOST_CODES ? code : 'other';
    this.failures.set(known, (this.failures.get(known) ?? 0) + 1);
  }
}

/**
 * With the driver's code and the server's number: `ER_CON_COUNT_ERROR (1040): Too many
 * connections`.
 */
function failureText(error: unknown): string {
  const { code, errno = 0 } = error as { code?: string; errno?: number };
  const text = reason(error);
  // Node's own messages have it.
  if (code === undefined || text.includes(code)) return text;
  return errno > 0 ? `${code} (${errno}): ${text}` : `${code}: ${text}`;
}
