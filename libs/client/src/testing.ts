/* For the unit tests of services that use RowMQ. */
export * from './testing/earlier-enqueues.js';
export * from './testing/in-memory-broker.js';
export * from './testing/job-protocol.js';
export * from './testing/lease-protocol.js';
export * from './testing/rowmq-testing.module.js';
