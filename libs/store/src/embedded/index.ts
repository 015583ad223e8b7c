export * from './embedded-server.js';
export { EmbeddedServerError, FolderLockedError, ServerNotFoundError } from './errors.js';
export * from './folder-lock.js';
export * from './processes.js';
export * from './server-program.js';
export type { ServerExit } from './server-process.js';
