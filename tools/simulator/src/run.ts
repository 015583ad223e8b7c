import { setMaxListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { BrokerUnreachableError, type RowmqHttpClient } from '@rowmq/client/core';
import { RowmqError, type ErrorCode } from '@rowmq/contract';
import type { Ledger } from './ledger.js';
import type { Meter } from './meter.js';
import type { Random } from './random.js';
import type { SimulatorSettings } from './simulator.config.js';

/** Shared by everybody in one run. */
export interface Run {
  /** Marks this run's messages and queues. */
  id: string;
  client: RowmqHttpClient;
  settings: SimulatorSettings;
  queues: readonly string[];
  /** All queues are subscribed to it. Undefined: producers enqueue. */
  topic: string | undefined;
  ledger: Ledger;
  meter: Meter;
  /**
   * A consumer's failure aborts it. Without that consumer the run proves nothing, so nobody goes
   * on.
   */
  failure: AbortController;
}

/**
 * These refusals prove that the broker did nothing. After `database-unavailable` and
 * `internal-error`, a COMMIT may have gone through.
 */
const NOTHING_DONE: ReadonlySet<ErrorCode> = new Set([
  'invalid-request',
  'unauthorized',
  'forbidden',
  'queue-not-found',
  'topic-not-found',
  'message-too-large',
  'queue-full',
  'overloaded',
]);

/** Milliseconds on a steady clock; the only clock of the simulator. */
export const now = (): number => performance.now();

/**
 * Counts a failed call by its code and returns what is known about its effect. Any error but the
 * broker's refusal or a broken connection is a fault of the simulator: it throws it.
 */
export function failed(run: Run, error: unknown): 'nothing-done' | 'unknown' {
  if (error instanceof RowmqError) {
    run.meter.error(error.code);
    return NOTHING_DONE.has(error.code) ? 'nothing-done' : 'unknown';
  }
  if (error instanceof BrokerUnreachableError) {
    run.meter.error(error.outcome === 'not-sent' ? 'unreachable' : 'no-answer');
    return error.outcome === 'not-sent' ? 'nothing-done' : 'unknown';
  }
  throw error;
}

const BACK_OFF_MS = { min: 50, max: 500 };

/** Backs off after a failure: as long as the broker asks for, within bounds, plus a random time. */
export async function backOff(error: unknown, random: Random, stop: AbortSignal): Promise<void> {
  const asked = error instanceof RowmqError ? (error.retryAfterSeconds ?? 0) * 1000 : 0;
  const ms = Math.min(asked, 5000) + random.between(BACK_OFF_MS.min, BACK_OFF_MS.max);
  await pause(ms, stop);
}

/** Waits, or returns early when `stop` is aborted. */
export async function pause(ms: number, stop?: AbortSignal): Promise<void> {
  try {
    await sleep(ms, undefined, stop && { signal: stop });
  } catch (error) {
    if (stop?.aborted !== true) throw error;
  }
}

/** A controller whose signal any number of workers may listen to without a warning of a leak. */
export function manyListeners(): AbortController {
  const controller = new AbortController();
  setMaxListeners(0, controller.signal);
  return controller;
}

/** Counts a call among the requests in flight for as long as it lasts. */
export async function inFlight<Answer>(run: Run, call: Promise<Answer>): Promise<Answer> {
  run.meter.requestsInFlight++;
  try {
    return await call;
  } finally {
    run.meter.requestsInFlight--;
  }
}
