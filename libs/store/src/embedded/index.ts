export * from './embedded-server.js';
export { EmbeddedServerError, FolderLockedError, ServerNotFoundError } from './errors.js';
export * from './folder-lock.js';
export * from './group/embedded-group.js';
export type { GroupMember } from './group/group-member.js';
export { freePort } from './ports.js';
export * from './processes.js';
export * from './server-program.js';
export type { ServerExit } from './server-process.js';
