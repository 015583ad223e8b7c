import { InitialSchema1700000000000 } from './1700000000000-initial-schema.js';
import type { RowmqMigration } from './migration.js';

export { TABLES } from './1700000000000-initial-schema.js';
export type { RowmqMigration } from './migration.js';
export { isIgnorable } from './migration.js';

/** Every migration, oldest first. */
export const MIGRATIONS: readonly (new () => RowmqMigration)[] = [InitialSchema1700000000000];
