import { once } from 'node:events';
import type { IncomingMessage, RequestListener, Server } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { answerToBadBytes } from './bad-bytes.js';
import type { Connections } from './connections.js';
import { REQUEST_ID_HEADER } from './request-id.js';
import { VERSION } from './version.js';

/**
 * Nest's HTTP server, with the broker's own rules for connections. Every answer has the broker's
 * version and the id of its request.
 */
export class BrokerAdapter extends FastifyAdapter {
  private operations: Server | undefined;

  constructor(
    private readonly connections: Connections,
    options: ConstructorParameters<typeof FastifyAdapter>[0],
  ) {
    super({ ...(options as object), serverFactory: (handle: RequestListener) => connections.createServer(handle) });
    this.getInstance().decorateRequest('problem', null);
    this.getInstance().addHook('onRequest', (request, reply, done) => {
      void reply.header('rowmq-version', VERSION);
      void reply.header(REQUEST_ID_HEADER, request.id);
      done();
    });
  }

  /** Whether a stop has begun. */
  get isStopping(): boolean {
    return this.connections.isStopping;
  }

  /** Serves the calls that show the broker itself on a port of their own, until the stop. */
  async listenForOperations(port: number, host: string): Promise<AddressInfo> {
    const server = this.connections.createServer((request, response) => this.getInstance().routing(request, response));
    server.on('clientError', ({ code }: NodeJS.ErrnoException, socket: Socket) =>
      this.connections.refuse(socket, answerToBadBytes(code)),
    );
    this.operations = server;
    server.listen(port, host);
    await once(server, 'listening');
    return server.address() as AddressInfo;
  }

  /** Whether a request came to the operations' own port. */
  isForOperations({ socket }: IncomingMessage): boolean {
    return this.operations !== undefined && (socket as Socket & { server?: unknown }).server === this.operations;
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
