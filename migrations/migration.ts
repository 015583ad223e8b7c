import type { MigrationInterface } from 'typeorm';

/** A migration of RowMQ's schema. */
export interface RowmqMigration extends MigrationInterface {
  readonly name: string;
  /**
   * For the operator, before the migration runs: which requests wait for it and for how long, or
   * why none does.
   */
  readonly blocks: string;
}

/**
 * Whether a process that does not know a migration of this name may go on. That holds if the
 * migration only adds what older processes leave alone. Its name then begins with Expand.
 */
export function isIgnorable(name: string): boolean {
  return name.startsWith('Expand');
}
