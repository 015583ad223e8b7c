import { expect, test } from 'vitest';
import { Pressure } from './pressure.js';

const pressed = () => new Pressure({ slowMs: { reaper: 100, enqueues: 400, dequeues: 1600 } });

/** Batches of this length, one after the other. Returns the time after them. */
function run(pressure: Pressure, from: number, batches: number, ms: number): number {
  let now = from;
  for (let index = 0; index < batches; index += 1) {
    const end = pressure.begin(now);
    now += ms;
    end(now);
  }
  return now;
}

test('levels come one after the other as batches get slower, and go with a distance', () => {
  const pressure = pressed();
  let now = run(pressure, 1000, 50, 20);
  expect(pressure.level(now)).toBe(0);
  now = run(pressure, now, 50, 150);
  expect(pressure.level(now)).toBe(1);
  now = run(pressure, now, 50, 500);
  expect(pressure.level(now)).toBe(2);
  now = run(pressure, now, 20, 2500);
  expect(pressure.level(now)).toBe(3);
  now = run(pressure, now, 30, 300);
  expect(pressure.level(now)).toBe(2);
  now = run(pressure, now, 30, 60);
  expect(pressure.level(now)).toBe(1);
  now = run(pressure, now, 30, 20);
  expect(pressure.level(now)).toBe(0);
});

test('one batch that waits for a lock presses nobody, and several that hang do', () => {
  const pressure = pressed();
  const now = run(pressure, 1000, 10, 10);
  pressure.begin(now);
  expect(pressure.level(now + 5000)).toBe(0);
  // Another one ends in time.
  pressure.begin(now + 5000)(now + 5010);
  expect(pressure.level(now + 5010)).toBe(0);
  pressure.begin(now + 6000);
  expect(pressure.level(now + 6050)).toBe(0);
  expect(pressure.level(now + 6150)).toBe(1);
  expect(pressure.level(now + 6500)).toBe(2);
  expect(pressure.level(now + 8000)).toBe(3);
});

test('without batches, the pressure goes by itself, so that somebody may try again', () => {
  const pressure = pressed();
  const now = run(pressure, 1000, 20, 3000);
  expect(pressure.level(now)).toBe(3);
  expect(pressure.level(now + 10_000)).toBe(0);
});

test('a broker whose thresholds are never reached never gives way', () => {
  const pressure = new Pressure({ slowMs: { reaper: Infinity, enqueues: Infinity, dequeues: Infinity } });
  expect(pressure.level(run(pressure, 0, 5, 100_000))).toBe(0);
});
