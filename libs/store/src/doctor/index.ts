/*
 * The examination of a database for `rowmq doctor`. It is a part of the store, because only the
 * store knows SQL, and because it asks the same checks as brokers and reapers at their start. The
 * command line imports this part alone, when it needs it: the rest of its commands work without a
 * database driver. Nothing here loads Nest, so that the published package can carry it inside.
 */
export { readDoctorConfig, type DoctorConfig } from './doctor.config.js';
export { examineDatabase } from './examine-database.js';
export type { Finding } from './finding.js';
