import type { Socket } from 'node:net';
import type { FastifyAdapter } from '@nestjs/platform-fastify';

/** A connection, and how many answers it is owed. */
interface Line {
  owed: number;
}

/** Lets the server close as soon as what it has begun is answered. By itself it waits for clients that keep their connections open, for longer than a stop may take. */
export function closeConnectionsOnStop(adapter: FastifyAdapter): void {
  const instance = adapter.getInstance();
  const lines = new WeakMap<Socket, Line>();
  let answering = 0;
  let stopping = false;
  const settle = (line: Line, count: number): void => {
    line.owed -= count;
    answering -= count;
    if (stopping && answering === 0) instance.server.closeAllConnections();
  };
  /** A pipelined answer whose turn never came does not hear of the end of its connection: the connection tells for all. */
  const open = (socket: Socket): Line => {
    const line: Line = { owed: 0 };
    lines.set(socket, line);
    socket.once('close', () => settle(line, line.owed));
    return line;
  };
  instance.addHook('onRequest', ({ raw: { socket } }, { raw: response }, done) => {
    const line = lines.get(socket) ?? open(socket);
    line.owed += 1;
    answering += 1;
    response.once('close', () => settle(line, Math.min(line.owed, 1)));
    done();
  });
  instance.addHook('onSend', (_request, reply, _payload, done) => {
    if (stopping) void reply.header('connection', 'close');
    done();
  });
  instance.addHook('preClose', (done) => {
    stopping = true;
    if (answering === 0) instance.server.closeAllConnections();
    done();
  });
}
