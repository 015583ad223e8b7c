import { ERROR_CODES, type ErrorCode, RowmqError } from '@rowmq/contract';
import { describe, expect, it } from 'vitest';
import { BrokerUnreachableError, isOutcomeUnknown, mayPass } from './broker-unreachable.error.js';

/** Each code of the contract: a new one has to be judged here. */
const JUDGED: Record<ErrorCode, { passes: boolean; inDoubt: boolean }> = {
  'invalid-request': { passes: false, inDoubt: false },
  unauthorized: { passes: false, inDoubt: false },
  forbidden: { passes: false, inDoubt: false },
  'too-many-attempts': { passes: false, inDoubt: false },
  'key-not-found': { passes: false, inDoubt: false },
  'key-exists': { passes: false, inDoubt: false },
  'queue-not-found': { passes: false, inDoubt: false },
  'queue-exists': { passes: false, inDoubt: false },
  'schedule-not-found': { passes: false, inDoubt: false },
  'topic-not-found': { passes: false, inDoubt: false },
  'subscription-not-found': { passes: false, inDoubt: false },
  'job-not-found': { passes: false, inDoubt: false },
  'delivery-not-found': { passes: false, inDoubt: false },
  'lease-lost': { passes: false, inDoubt: false },
  'message-leased': { passes: false, inDoubt: false },
  'enqueue-in-progress': { passes: true, inDoubt: false },
  'message-too-large': { passes: false, inDoubt: false },
  'idempotency-key-reused': { passes: false, inDoubt: false },
  'rate-limited': { passes: true, inDoubt: false },
  'queue-paused': { passes: false, inDoubt: false },
  'queue-not-empty': { passes: false, inDoubt: false },
  'queue-full': { passes: false, inDoubt: false },
  'queue-locked': { passes: true, inDoubt: false },
  overloaded: { passes: true, inDoubt: false },
  'database-unavailable': { passes: true, inDoubt: true },
  'internal-error': { passes: false, inDoubt: true },
};

describe('an error of a call', () => {
  it.each(ERROR_CODES)(
    'with the code %s is judged by whether it may pass, and whether the call is in doubt',
    (code) => {
      const error = new RowmqError(code, 'refused');
      expect({ passes: mayPass(error), inDoubt: isOutcomeUnknown(error) }).toEqual(JUDGED[code]);
    },
  );

  it('without an answer may pass, and is in doubt unless nothing was sent', () => {
    const [unsent, unknown] = (['not-sent', 'unknown'] as const).map(
      (outcome) => new BrokerUnreachableError('away', 'http://nowhere', outcome),
    );
    expect([mayPass(unsent), isOutcomeUnknown(unsent)]).toEqual([true, false]);
    expect([mayPass(unknown), isOutcomeUnknown(unknown)]).toEqual([true, true]);
  });

  it('that is not of this client says nothing of the call', () => {
    for (const other of [new Error('a defect'), undefined, 'text', { code: 'database-unavailable' }]) {
      expect([mayPass(other), isOutcomeUnknown(other)]).toEqual([false, false]);
    }
  });
});
