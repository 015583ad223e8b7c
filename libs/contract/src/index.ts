export * from './errors.js';
export * from './limits.js';
export * from './message-bytes.js';
export * from './message-id.js';
export * from './read-request.js';
export * from './receipt.js';
export * from './schemas.js';
