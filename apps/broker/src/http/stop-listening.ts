import { Server } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';

/** Waiting connections are accepted for at most this long. */
const WAIT_MS = 1000;
/** A turn of the event loop in which nearly nothing happened. */
const QUIET_TURN_MS = 0.3;

/**
 * Stops listening. The system then resets connections that nobody has accepted, and requests may be
 * on them. So the process accepts them first.
 *
 * Node looks for connections once in each turn of its event loop, and accepts one. The system
 * resets connections that come in the rest of the last turn. So that turn must be short.
 *
 * @param accepted tells the number of connections that the server has accepted so far
 */
export async function stopListening(server: Server, accepted: () => number): Promise<void> {
  const until = performance.now() + WAIT_MS;
  // The rest of this turn. The next one begins with a look for connections.
  await turn();
  for (let isQuiet = false; !isQuiet && performance.now() < until;) {
    const before = accepted();
    const from = performance.now();
    await turn();
    isQuiet = accepted() === before && performance.now() - from < QUIET_TURN_MS;
  }
  // The close of an HTTP server would also close the idle connections.
  if (server.listening) Server.prototype.close.call(server);
}
