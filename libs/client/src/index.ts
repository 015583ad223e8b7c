export * from './broker-unreachable.error.js';
export * from './rowmq-http-client.js';
export * from './rowmq.module.js';
