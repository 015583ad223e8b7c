import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, test } from 'vitest';
import { KnownConsumers } from './known-consumers.js';
import { LeaseHolders } from './lease-holders.js';

/** A broker's memory, and consumers by name. */
function remembering() {
  const holders = new LeaseHolders();
  const consumers = new KnownConsumers(holders);
  return {
    holders,
    consumers,
    record: (name: string | undefined, held: { receipt: string }[], queue = 'orders') =>
      holders.record(consumers.see(queue, name, '127.0.0.1'), held),
    names: (...wanted: string[]) =>
      Object.fromEntries([...holders.find(new Set(wanted))].map(([lease, { name }]) => [lease, name])),
  };
}

const leases = (...receipts: string[]) => receipts.map((receipt) => ({ receipt }));

test('a broker remembers who holds a lease, and who extended it last', () => {
  const { record, names } = remembering();
  record('one', leases('a', 'b'));
  record('two', leases('c'));
  record(undefined, leases('d'));
  record('three', leases('b'));
  expect(names('a', 'b', 'c', 'd', 'e')).toEqual({ a: 'one', b: 'three', c: 'two', d: null });
});

test('it forgets the oldest leases first, and keeps those that are extended', () => {
  const { record, names } = remembering();
  record('early', leases('forgotten', 'extended'));
  for (let index = 0; index < 65_535; index += 1) {
    record('busy', leases(String(index)));
    if (index === 40_000) record('early', leases('extended'));
  }
  expect(names('forgotten', 'extended', '65534')).toEqual({ extended: 'early', 65534: 'busy' });
});

test('a long name is cut to 128 characters', () => {
  const { record, names } = remembering();
  record('x'.repeat(1000), leases('a'));
  expect(names('a')).toEqual({ a: 'x'.repeat(128) });
});

test('a long name takes no more memory than its 128 characters', () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const used = (): number => {
    collect();
    return process.memoryUsage().heapUsed;
  };
  const { record, names } = remembering();
  const bytes = Buffer.alloc(16 * 1024, 'x');
  const before = used();
  for (let index = 0; index < 65_536; index += 1) {
    const receipt = String(index);
    bytes.write(receipt);
    record(bytes.toString('latin1'), leases(receipt));
  }
  expect(used() - before).toBeLessThan(40_000_000);
  expect(names('65535')).toEqual({ 65535: '65535'.padEnd(128, 'x') });
});

test('the consumers of a queue have the leases of that queue, each where it was seen last', () => {
  const { record, consumers } = remembering();
  record('one', leases('a', 'b'));
  record('one', leases('c'), 'mails');
  record('two', leases('b'));
  expect(consumers.of('orders').map(({ name, leases: held }) => [name, held])).toEqual([
    ['one', ['a']],
    ['two', ['b']],
  ]);
});

test('a broker remembers a bounded number of consumers', () => {
  const { consumers } = remembering();
  for (let index = 0; index <= 10_000; index += 1) consumers.see('orders', `worker-${index}`, '127.0.0.1');
  const names = consumers.of('orders').map(({ name }) => name);
  expect(names).toHaveLength(10_000);
  expect(names).not.toContain('worker-0');
});
