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
