import { FastifyAdapter } from '@nestjs/platform-fastify';
import { expect, test } from 'vitest';
import { addressOf } from './client-address.js';

/** The address of a request from `peer`, to a broker that trusts some proxies. */
async function addressFrom(peer: string, forwarded: string | string[] | undefined, trusted: string[]): Promise<string> {
  const server = new FastifyAdapter({ trustProxy: trusted.length > 0 && trusted }).getInstance();
  server.get('/', async (request) => ({ address: addressOf(request) }));
  const headers = forwarded === undefined ? {} : { 'x-forwarded-for': forwarded };
  const answer = await server.inject({ method: 'GET', url: '/', remoteAddress: peer, headers });
  await server.close();
  return answer.json<{ address: string }>().address;
}

const PROXY = '10.0.0.1';
const TRUSTED = ['10.0.0.0/8', 'fd00::/8'];

test('the address is that of the connection if nobody is trusted', async () => {
  expect(await addressFrom('203.0.113.9', '198.51.100.7', [])).toBe('203.0.113.9');
  expect(await addressFrom('::ffff:203.0.113.9', undefined, [])).toBe('203.0.113.9');
  expect(await addressFrom('2001:db8::9', undefined, [])).toBe('2001:db8::9');
});

test('a peer that is no trusted proxy cannot name another address', async () => {
  expect(await addressFrom('203.0.113.9', '198.51.100.7', TRUSTED)).toBe('203.0.113.9');
});

test.each([
  ['the client', '198.51.100.7', '198.51.100.7'],
  ['the client behind two proxies', '198.51.100.7, 10.9.9.9', '198.51.100.7'],
  ['nobody whom the client named itself', '192.0.2.1, 198.51.100.7', '198.51.100.7'],
  ['a client of IPv6', '2001:db8::7', '2001:db8::7'],
  ['a client with its port', '198.51.100.7:4711', '198.51.100.7'],
  ['a client of IPv6 with its port', '[2001:db8::7]:4711', '2001:db8::7'],
  ['a client whose address is mapped to IPv6', '::ffff:198.51.100.7', '198.51.100.7'],
  ['itself, for want of an address', undefined, PROXY],
  ['itself, if the client is no address', '<script>', PROXY],
  ['itself, if the client is unknown', 'unknown', PROXY],
  ['itself, if the list is empty', '', PROXY],
])('a trusted proxy names %s', async (_, forwarded, expected) => {
  expect(await addressFrom(PROXY, forwarded, TRUSTED)).toBe(expected);
  expect(await addressFrom('fd00::1', forwarded, TRUSTED)).toBe(expected === PROXY ? 'fd00::1' : expected);
});
