import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, test } from 'vitest';
import { LeaseHolders } from './lease-holders.js';

const leases = (...receipts: string[]) => receipts.map((receipt) => ({ receipt }));

test('a broker remembers who holds a lease, and who extended it last', () => {
  const holders = new LeaseHolders();
  holders.record('one', leases('a', 'b'));
  holders.record('two', leases('c'));
  holders.record(undefined, leases('d'));
  holders.record('three', leases('b'));
  expect(Object.fromEntries(holders.find(new Set(['a', 'b', 'c', 'd', 'e'])))).toEqual({
    a: 'one',
    b: 'three',
    c: 'two',
  });
});

test('it forgets the oldest leases first, and keeps those that are extended', () => {
  const holders = new LeaseHolders();
  holders.record('early', leases('forgotten', 'extended'));
  for (let index = 0; index < 65_535; index += 1) {
    holders.record('busy', leases(String(index)));
    if (index === 40_000) holders.record('early', leases('extended'));
  }
  expect(Object.fromEntries(holders.find(new Set(['forgotten', 'extended', '65534'])))).toEqual({
    extended: 'early',
    65534: 'busy',
  });
});

test('a long name is cut to 128 characters', () => {
  const holders = new LeaseHolders();
  holders.record('x'.repeat(1000), leases('a'));
  expect(holders.find(new Set(['a'])).get('a')).toBe('x'.repeat(128));
});

test('a long name takes no more memory than its 128 characters', () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const used = (): number => {
    collect();
    return process.memoryUsage().heapUsed;
  };
  const holders = new LeaseHolders();
  const bytes = Buffer.alloc(16 * 1024, 'x');
  const before = used();
  for (let index = 0; index < 65_536; index += 1) {
    const receipt = String(index);
    bytes.write(receipt);
    holders.record(bytes.toString('latin1'), leases(receipt));
  }
  expect(used() - before).toBeLessThan(40_000_000);
  expect(holders.find(new Set(['65535'])).get('65535')).toBe('65535'.padEnd(128, 'x'));
});
