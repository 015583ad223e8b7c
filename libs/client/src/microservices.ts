/* A transport for Nest microservices. Needs @nestjs/microservices. */
export * from './microservices/rowmq.client.js';
export * from './microservices/rowmq.context.js';
export * from './microservices/rowmq.exceptions.js';
export * from './microservices/rowmq.server.js';
