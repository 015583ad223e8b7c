import { reason } from '@rowmq/runtime';
import { failureCode, isTrouble } from './database-errors.js';

/** Trouble ends after this time without a failure. An earlier failure prolongs it. */
const QUIET_MS = 5000;
/** The shortest time between two log lines about the primary. */
const MOVE_PAUSE_MS = 5000;
/** Bounds {@link DatabaseHealth.failures}. Fewer distinct codes occur in practice. */
const MOST_CODES = 50;

/** Receives log lines. Nest's Logger implements it. */
export interface HealthLog {
  log(line: string): void;
  warn(line: string): void;
}

/**
 * The database's health as this process sees it. It logs the start and end of trouble, and a change
 * of primary. It writes a few lines in ten seconds at most, whatever the request rate.
 */
export class DatabaseHealth {
  /**
   * Failed attempts by the driver's code. `other` counts errors without a code, and new codes above
   * the limit.
   */
  readonly failures = new Map<string, number>();
  private trouble:
    { since: number; failures: number; ending: NodeJS.Timeout | undefined; toldOfSeveral: boolean } | undefined;
  private primary: { told: string; now: string } | undefined;

  constructor(private readonly logger: HealthLog = { log: () => undefined, warn: () => undefined }) {}

  /** True if the most recent attempt got an answer. */
  get isUp(): boolean {
    return this.trouble === undefined || this.trouble.ending !== undefined;
  }

  /** True if several servers took writes at the last look, so that requests are refused. */
  hasSeveralServers = false;

  /** Records a failed attempt. */
  failed(error: unknown): void {
    const code = failureCode(error);
    if (code === undefined) return;
    this.count(code);
    if (!isTrouble(error)) return;
    if (this.trouble === undefined) {
      this.trouble = { since: performance.now(), failures: 0, ending: undefined, toldOfSeveral: false };
      this.logger.warn(`Trouble with the database: ${failureText(error)}. It is tried again.`);
    }
    if (code === 'SEVERAL_SERVERS') this.hasSeveralServers = true;
    if (this.hasSeveralServers && !this.trouble.toldOfSeveral) {
      this.trouble.toldOfSeveral = true;
      this.logger.warn(`No request is served: ${failureText(error)}.`);
    }
    clearTimeout(this.trouble.ending);
    this.trouble.ending = undefined;
    this.trouble.failures += 1;
  }

  /** Records an answer. Every answer calls it. */
  succeeded(): void {
    this.hasSeveralServers = false;
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

  /** Records that another host is now the primary. */
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
 * Adds the driver's code and the server's number: `ER_CON_COUNT_ERROR (1040): Too many
 * connections`.
 */
function failureText(error: unknown): string {
  const { code, errno = 0 } = error as { code?: string; errno?: number };
  const text = reason(error);
  // Node's own messages already contain the code.
  if (code === undefined || text.includes(code)) return text;
  return errno > 0 ? `${code} (${errno}): ${text}` : `${code}: ${text}`;
}
