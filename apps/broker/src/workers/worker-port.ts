import type { Server } from 'node:http';
import type { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { CONNECTION, LEAVING, LEFT, TAKEN } from './port-messages.js';

/** Longer than the primary needs to close the port. */
const LEAVE_MS = 3000;

/** Serves the connections that the primary hands to this worker. */
export function takeConnections(server: Server): void {
  process.on('message', (message, socket?: Socket) => {
    if (message !== CONNECTION) return;
    process.send?.(TAKEN);
    // It is missing if the client has hung up.
    if (socket === undefined) return;
    // As of a connection that an HTTP server accepts itself.
    socket.allowHalfOpen = true;
    server.emit('connection', socket);
  });
  // An HTTP server begins to enforce the limits of time for requests when it listens.
  server.emit('listening');
}

/** Asks the primary for no further connections. Resolves when the last one is here. */
export async function leavePort(): Promise<void> {
  // Its port closed with it.
  if (!process.connected) return;
  const left = new Promise<void>((resolve) => {
    process.on('message', (message) => message === LEFT && resolve());
    process.once('disconnect', resolve);
  });
  process.send?.(LEAVING);
  await Promise.race([left, delay(LEAVE_MS, undefined, { ref: false })]);
}
