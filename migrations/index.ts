import { InitialSchema1700000000000 } from './1700000000000-initial-schema.js';

export { TABLES } from './1700000000000-initial-schema.js';

/** Every migration, oldest first. */
export const MIGRATIONS = [InitialSchema1700000000000];
