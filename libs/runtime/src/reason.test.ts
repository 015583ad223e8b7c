import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { describe, expect, test } from 'vitest';
import { reason } from './reason.js';

describe('the reason of a failure', () => {
  test.each([
    [new Error('the table is busy'), 'the table is busy'],
    [Object.assign(new Error(''), { code: 'ECONNREFUSED' }), 'ECONNREFUSED'],
    [new TypeError(''), 'TypeError'],
    ['a text', 'a text'],
    [undefined, 'no answer'],
    [new AggregateError([new Error('this'), new AggregateError([new Error('that')])]), 'this, that'],
  ])('is the message of %j', (error, text) => {
    expect(reason(error)).toBe(text);
  });

  test('names each address of a name with several, which Node’s own message leaves out', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    server.close();
    await once(server, 'close');
    const socket = connect({
      port,
      host: 'two.example',
      lookup: (_host, _options, done) =>
        done(null, [
          { address: '127.0.0.1', family: 4 },
          { address: '127.0.0.2', family: 4 },
        ]),
      autoSelectFamily: true,
    });
    const [error] = (await once(socket, 'error')) as [Error];
    expect(reason(error)).toMatch(/ECONNREFUSED 127\.0\.0\.1:\d+.*ECONNREFUSED 127\.0\.0\.2:\d+/);
  });
});
