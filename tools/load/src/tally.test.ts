import { describe, expect, it } from 'vitest';
import { Tally } from './tally.js';

describe('Tally', () => {
  it('is balanced when every message came back once, in whatever order both were recorded', () => {
    const tally = new Tally<string>();
    tally.return(['b']);
    tally.send(['a', 'b']);
    tally.return(['a']);
    expect([tally.sent, tally.returned, tally.outstanding]).toEqual([2, 2, 0]);
    expect(() => tally.assertBalanced()).not.toThrow();
  });

  it('names lost messages', () => {
    const tally = new Tally<string>();
    tally.send(['a', 'b']);
    tally.return(['a']);
    expect(() => tally.assertBalanced()).toThrow('Of 2 messages 1 were lost (b) and 0 came twice');
  });

  it('names a message that came twice, and one that nobody sent', () => {
    const tally = new Tally<number>();
    tally.send([1, 2]);
    tally.return([1, 1, 2, 7]);
    expect(() => tally.assertBalanced()).toThrow('0 were lost and 2 came twice or were never sent (1, 7)');
  });

  it('knows since when a message is missing, and forgets one that came back', () => {
    const tally = new Tally<number>();
    tally.send([1], 42);
    expect(tally.sentAt(1)).toBe(42);
    tally.return([1]);
    expect(tally.sentAt(1)).toBeUndefined();
  });

  it('only counts where others send messages, too', () => {
    const tally = new Tally<string>(false);
    tally.send(['a']);
    tally.return(['of somebody else', 'another']);
    expect(tally.outstanding).toBe(-1);
    expect(() => tally.assertBalanced()).not.toThrow();
  });

  it('waits until as many came back as were sent', async () => {
    const tally = new Tally<string>();
    await tally.allReturned();
    tally.send(['a', 'b']);
    let done = false;
    const waiting = tally.allReturned().then(() => (done = true));
    tally.return(['a']);
    await Promise.resolve();
    expect(done).toBe(false);
    tally.return(['b']);
    await waiting;
    expect(done).toBe(true);
  });
});
