import { afterEach, expect, test } from 'vitest';
import { BrokerAdapter } from '../http/broker-adapter.js';
import { ANYBODY } from '../http/caller.js';
import { Connections } from '../http/connections.js';
import type { NeedsConfig } from '../http/needs.js';
import { checkKeys } from './check-keys.js';
import { FailedAttempts } from './failed-attempts.js';
import type { KnownKeys } from './known-keys.js';

const adapters: BrokerAdapter[] = [];
afterEach(async () => {
  await Promise.all(adapters.splice(0).map((adapter) => adapter.close()));
});

async function statusOf(config: Partial<NeedsConfig>, keys: KnownKeys | undefined): Promise<number> {
  const adapter = new BrokerAdapter(
    new Connections({ keepAliveMs: 1000, requestMs: 1000, standstillMs: 1000, stopMs: 1000 }),
    {},
  );
  adapters.push(adapter);
  const instance = adapter.getInstance();
  checkKeys(adapter, keys, new FailedAttempts({ failedAttempts: 1 }), undefined, {
    operationsNeedKey: true,
    operationsPort: undefined,
  });
  instance.get('/call', { config }, async () => 'done');
  instance.setErrorHandler(async (error: { code?: string }, _request, reply) =>
    reply.code(error.code === 'forbidden' ? 403 : 500).send(),
  );
  return (await instance.inject({ method: 'GET', url: '/call' })).statusCode;
}

/** Every key may do everything. */
const ALL_VALID = { find: () => ANYBODY } as unknown as KnownKeys;

test('a call that does not declare what it needs is refused, with every key and without keys', async () => {
  for (const keys of [ALL_VALID, undefined]) {
    expect(await statusOf({}, keys)).toBe(403);
    expect(await statusOf({ needs: { scope: 'admin' } }, keys)).toBe(200);
  }
});
