import type { Socket } from 'node:net';
import type { FastifyAdapter } from '@nestjs/platform-fastify';

/** A connection and the number of its open answers. */
interface Connection {
  owed: number;
}

/**
 * Closes the server as soon as every request in flight is answered. By itself, Node waits for
 * clients that keep their connections open, for longer than a stop may take.
 */
export function closeConnectionsOnStop(adapter: FastifyAdapter): void {
  const instance = adapter.getInstance();
  const connections = new WeakMap<Socket, Connection>();
  let answering = 0;
  let stopping = false;
  const settle = (connection: Connection, count: number): void => {
    connection.owed -= count;
    answering -= count;
    if (stopping && answering === 0) instance.server.closeAllConnections();
  };
  /** The end of a connection settles all its answers: Node tells a pipelined one nothing of it. */
  const open = (socket: Socket): Connection => {
    const connection: Connection = { owed: 0 };
    connections.set(socket, connection);
    socket.once('close', () => settle(connection, connection.owed));
    return connection;
  };
  instance.addHook('onRequest', ({ raw: { socket } }, { raw: response }, done) => {
    const connection = connections.get(socket) ?? open(socket);
    connection.owed += 1;
    answering += 1;
    response.once('close', () => settle(connection, Math.min(connection.owed, 1)));
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
