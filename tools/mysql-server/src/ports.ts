import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';

/**
 * Ports below those that systems give to outgoing connections, which begin at 32,768 or higher. An
 * outgoing connection could take such a port before a server listens on it again.
 */
const FIRST = 15_000;
const LAST = 31_999;
const TRIES = 200;

/**
 * Finds `count` consecutive ports of 127.0.0.1 on which nobody listens at the moment, and returns
 * the first. Nothing keeps others from taking them.
 */
export async function freePort(count = 1): Promise<number> {
  for (let tries = 0; tries < TRIES; tries += 1) {
    const first = randomInt(FIRST, LAST - count + 2);
    const ports = Array.from({ length: count }, (_, index) => first + index);
    const free = await Promise.all(ports.map((port) => isPortFree(port)));
    if (free.every(Boolean)) return first;
  }
  throw new Error(`There is no free TCP port on 127.0.0.1 between ${FIRST} and ${LAST}: end what listens there.`);
}

/** Whether nobody listens on a port of 127.0.0.1 at this moment. */
export async function isPortFree(port: number): Promise<boolean> {
  return new Promise((done) => {
    const server = createServer();
    server.once('error', () => done(false));
    server.listen(port, '127.0.0.1', () => server.close(() => done(true)));
  });
}
