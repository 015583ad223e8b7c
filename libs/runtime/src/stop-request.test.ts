import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { onStopRequest } from './stop-request.js';

type Listener = (signal: NodeJS.Signals) => void;

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
const added = new Map<NodeJS.Signals, Listener>();
let told: string[];

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['performance'] });
  told = [];
  const before = new Set(SIGNALS.flatMap((signal) => process.listeners(signal)));
  onStopRequest(
    (signal) => told.push(`first ${signal}`),
    (signal) => told.push(`again ${signal}`),
  );
  for (const signal of SIGNALS) {
    const listener = process.listeners(signal).find((one) => !before.has(one));
    added.set(signal, listener as Listener);
  }
});

afterEach(() => {
  vi.useRealTimers();
  for (const [signal, listener] of added) process.off(signal, listener);
  added.clear();
});

/** Only what was just added hears of it, and not the test's own process. */
const send = (signal: NodeJS.Signals) => added.get(signal)?.(signal);

test('signals within a second are one request to stop, also if they differ', () => {
  send('SIGINT');
  vi.advanceTimersByTime(999);
  send('SIGINT');
  send('SIGTERM');
  expect(told).toEqual(['first SIGINT']);
});

test('a signal a second later is another request to stop, and so is each after it', () => {
  send('SIGHUP');
  vi.advanceTimersByTime(1_000);
  send('SIGTERM');
  send('SIGINT');
  expect(told).toEqual(['first SIGHUP', 'again SIGTERM', 'again SIGINT']);
});
