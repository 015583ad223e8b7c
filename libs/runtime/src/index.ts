export * from './child-process.js';
export * from './database-tls.js';
export * from './database-url.js';
export * from './reason.js';
export * from './run.js';
export * from './settings.js';
export * from './stop-request.js';
export * from './supervisor.js';
