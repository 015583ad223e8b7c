import type { AuditRepository, AuditRow } from '@rowmq/store';
import { expect, it } from 'vitest';
import { AuditLog, type AuditedAction } from './audit-log.js';

const action = (requestId: string): AuditedAction => ({
  action: 'putQueue',
  path: '/v1/admin/queues/q',
  status: 200,
  problem: null,
  key: null,
  address: '127.0.0.1',
  requestId,
  changes: null,
});

it('an action that comes at the end of a write is written too, at whatever moment', async () => {
  for (let turns = 1; turns < 10; turns += 1) {
    const written: string[] = [];
    const add = async (rows: readonly AuditRow[]): Promise<void> => {
      written.push(...rows.map(({ requestId }) => requestId));
      if (written.length > 1) return;
      void (async () => {
        for (let turn = 0; turn < turns; turn += 1) await Promise.resolve();
        log.add(action('second'));
      })();
    };
    const log = new AuditLog({ add } as AuditRepository);
    log.add(action('first'));
    await new Promise(setImmediate);
    expect(written, `after ${turns} turns`).toEqual(['first', 'second']);
  }
});
