import type { RequestListener } from 'node:http';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import type { Connections } from './connections.js';
import { VERSION } from './version.js';

/**
 * Nest's HTTP server, with the broker's own rules for connections, and its version in every answer.
 */
export class BrokerAdapter extends FastifyAdapter {
  constructor(
    private readonly connections: Connections,
    options: ConstructorParameters<typeof FastifyAdapter>[0],
  ) {
    super({ ...(options as object), serverFactory: (handle: RequestListener) => connections.createServer(handle) });
    this.getInstance().addHook('onRequest', (_request, reply, done) => {
      void reply.header('rowmq-version', VERSION);
      done();
    });
  }

  /** Whether a stop has begun. */
  get isStopping(): boolean {
    return this.connections.isStopping;
  }

  /** Nest calls it at the beginning of a stop, before any hook. */
  override beforeClose(): void {
    super.beforeClose();
    this.connections.announceStop();
  }

  override async close(): Promise<void> {
    await this.connections.drained();
    await super.close();
  }
}
