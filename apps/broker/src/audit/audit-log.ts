import { setTimeout as sleep } from 'node:timers/promises';
import { Injectable, Logger, type OnApplicationShutdown } from '@nestjs/common';
import { AuditRepository, type AuditRow } from '@rowmq/store';

/** Actions that wait to be written. Beyond it, only the log has them. */
const MOST_WAITING = 1000;
const BATCH = 100;
const TRIES = 5;
const PAUSE_MS = 1000;
const CHANGES_CHARS = 8000;

/** An action, with its changes as an object. */
export interface AuditedAction extends Omit<AuditRow, 'changes'> {
  changes: object | null;
}

/**
 * Writes each action of an administrator to the log at once, and to the table `audit` soon after.
 * No reply waits for the table.
 */
@Injectable()
export class AuditLog implements OnApplicationShutdown {
  private readonly logger = new Logger('audit');
  private readonly waiting: AuditRow[] = [];
  private writing: Promise<void> | undefined;
  private isStopping = false;

  constructor(private readonly repository: AuditRepository) {}

  add(action: AuditedAction): void {
    const changes = action.changes === null ? null : JSON.stringify(action.changes);
    const isLong = changes !== null && changes.length > CHANGES_CHARS;
    this.logger.log(isLong ? { ...action, changes: TOO_LONG } : action);
    if (this.waiting.length >= MOST_WAITING) {
      this.logger.error('Too many actions wait for the table audit. This log has the one before, and the table not.');
      return;
    }
    this.waiting.push({ ...action, changes: isLong ? JSON.stringify(TOO_LONG) : changes });
    this.writing ??= this.writeAll();
  }

  /** Writes what waits. It gives up at the first failure. */
  async onApplicationShutdown(): Promise<void> {
    this.isStopping = true;
    await this.writing;
  }

  private async writeAll(): Promise<void> {
    for (let failures = 0; this.waiting.length > 0;) {
      const batch = this.waiting.slice(0, BATCH);
      try {
        await this.repository.add(batch);
        failures = 0;
      } catch (error) {
        failures += 1;
        if (failures < TRIES && !this.isStopping) {
          await sleep(PAUSE_MS, undefined, { ref: false });
          continue;
        }
        this.logger.error(`Could not write ${batch.length} actions to the table audit: ${String(error)}`);
      }
      this.waiting.splice(0, batch.length);
    }
    // At once: an action that comes later must find that nobody writes.
    this.writing = undefined;
  }
}

const TOO_LONG = { changes: { to: 'too long to show' } };
