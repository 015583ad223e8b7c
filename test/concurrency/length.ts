/**
 * Whether the tests of this folder run in their long form, as `npm run test:deadlocks` runs them.
 * In `npm test` they share two cores with all other tests.
 */
export const isLong = process.env['DEADLOCKS_MINUTES'] !== undefined;
