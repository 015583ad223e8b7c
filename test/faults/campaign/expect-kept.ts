import { expect } from 'vitest';
import { verdictText } from '../../../tools/simulator/src/verdict-text.js';
import type { Outcome } from './campaign.js';
import type { FaultRig } from './rig.js';

/**
 * Fails unless all of this holds. Every guarantee was certainly kept. The database holds exactly
 * the ledger's messages. No call ended in an error that the fault does not explain. All processes
 * of RowMQ are alive.
 */
export function expectAllKept({ fault, result, deliveriesLeft, messagesStored }: Outcome, rig: FaultRig): void {
  const told = verdictText(result);
  const { status, stored } = result.verdict;
  expect(status, told).toBe('OK');
  expect(deliveriesLeft, told).toBe(0);
  expect(messagesStored, told).toBeGreaterThanOrEqual(stored.atLeast);
  expect(messagesStored, told).toBeLessThanOrEqual(stored.atMost);
  const allowed: readonly string[] = fault.mayEndIn;
  expect(
    Object.keys(result.errors).filter((trouble) => !allowed.includes(trouble)),
    told,
  ).toEqual([]);
  for (const process of rig.processes) expect(process.isAlive(), `${process.user}:\n${process.output()}`).toBe(true);
}
