import { once } from 'node:events';
import { createServer, type RequestListener, type Server } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { ClientConnection } from './client-connection.js';

let server: Server;

afterEach(async () => {
  server.closeAllConnections();
  server.close();
  await once(server, 'close');
});

/** Starts a server and sends it a request. `handle` gets the connection as in a broker. */
async function serve(
  handle: (client: ClientConnection, ...request: Parameters<RequestListener>) => void,
): Promise<Socket> {
  server = createServer((request, response) => handle(new ClientConnection(request, response), request, response));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
  return socket;
}

/** A promise and the function that fulfils it. */
function deferred<T = void>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let resolve!: (value: T) => void;
  const promise = new Promise<T>((done) => (resolve = done));
  return { promise, resolve };
}

async function aborted({ hungUp }: ClientConnection): Promise<boolean> {
  return hungUp.aborted || once(hungUp, 'abort').then(() => true);
}

describe('a client has hung up', () => {
  test('when it closes before there is an answer', async () => {
    const seen = deferred<ClientConnection>();
    const socket = await serve((client) => seen.resolve(client));
    const client = await seen.promise;
    expect(client.hungUp.aborted).toBe(false);
    socket.destroy();
    expect(await aborted(client)).toBe(true);
  });

  test('when it closes while the broker writes its answer', async () => {
    const seen = deferred<ClientConnection>();
    const socket = await serve((client, _request, response) => {
      // More than any operating system buffers for a client that does not read.
      response.end(Buffer.alloc(64 * 1024 * 1024));
      seen.resolve(client);
    });
    const client = await seen.promise;
    await once(socket, 'readable');
    expect(client.hungUp.aborted).toBe(false);
    socket.destroy();
    expect(await aborted(client)).toBe(true);
  });

  test('when it closes while the answer waits behind an earlier one on the same connection', async () => {
    const clients: ClientConnection[] = [];
    const both = deferred();
    const socket = await serve((client, _request, response) => {
      clients.push(client);
      if (clients.length < 2) return;
      response.end('answer to the second, which the first holds up');
      both.resolve();
    });
    socket.write('GET /second HTTP/1.1\r\nHost: localhost\r\n\r\n');
    await both.promise;
    socket.destroy();
    expect(await Promise.all(clients.map(aborted))).toEqual([true, true]);
  });

  test('when it had closed before the handler began', async () => {
    const seen = deferred<ClientConnection>();
    const socket = await serve((_client, request, response) => {
      response.once('close', () => seen.resolve(new ClientConnection(request, response)));
      socket.destroy();
    });
    expect((await seen.promise).hungUp.aborted).toBe(true);
  });
});

describe('a client has not hung up', () => {
  test('when it closes after it got its answer, or keeps the connection open', async () => {
    const seen = deferred<ClientConnection>();
    const closed = deferred();
    const socket = await serve((client, _request, response) => {
      response.once('close', () => closed.resolve());
      response.end('answer');
      seen.resolve(client);
    });
    const client = await seen.promise;
    await once(socket, 'data');
    await closed.promise;
    socket.destroy();
    await once(socket, 'close');
    expect(client.hungUp.aborted).toBe(false);
  });
});
