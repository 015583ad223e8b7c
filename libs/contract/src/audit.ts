import { z } from 'zod';
import { ERROR_CODES } from './errors.js';
import { keyName } from './keys.js';
import { LIMITS } from './limits.js';
import { timestamp } from './schemas.js';

/* The audit: who changed what. */

const cursor = z
  .string()
  .regex(/^\d{1,15}$/, 'must be the nextAfter of the previous page')
  .meta({ example: '4711' });
const instant = z.iso.datetime({
  offset: true,
  error: 'must be a time in ISO 8601 with a time zone, such as 2026-11-22T18:38:26.123Z',
});

export const auditEntry = z.object({
  at: timestamp,
  action: z.string().meta({ description: 'The operationId of the call', example: 'putQueue' }),
  path: z.string().meta({ description: 'The path of the call', example: '/v1/admin/queues/orders' }),
  status: z.int().meta({ description: 'The status of the reply', example: 200 }),
  problem: z
    .literal([...ERROR_CODES, null])
    .meta({ description: 'Why it was refused; null: it was done', example: null }),
  key: z
    .string()
    .nullable()
    .meta({ description: 'Name of the API key; null: none, or a wrong one', example: 'platform' }),
  address: z.string().meta({ description: 'The address from which the call came', example: '10.0.3.7' }),
  requestId: z.string().meta({ description: 'The X-Request-Id of the reply', example: 'k3f9x2a7-1c' }),
  changes: z
    .record(z.string(), z.object({ from: z.unknown().optional(), to: z.unknown().optional() }))
    .nullable()
    .meta({
      description: 'Each field that changed; null: none is known',
      example: { leaseSeconds: { from: 30, to: 60 } },
    }),
});

export const auditQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(LIMITS.page).default(LIMITS.page),
  after: cursor.optional().meta({ description: 'The nextAfter of the previous page' }),
  action: z
    .string()
    .regex(/^[A-Za-z]{1,40}$/, 'must be the operationId of a call, such as putQueue, or an operation of SQS')
    .optional()
    .meta({ description: 'Only this action', example: 'putQueue' }),
  key: keyName.optional().meta({ description: 'Only actions with this key' }),
  path: z.string().max(300).optional().meta({
    description: 'Only paths that begin with this',
    example: '/v1/admin/queues/orders',
  }),
  refused: z.enum(['true', 'false']).optional().meta({ description: 'true: only refused ones; false: only others' }),
  from: instant.optional().meta({ description: 'Only at this time or later' }),
  to: instant.optional().meta({ description: 'Only before this time' }),
});

export const auditAnswer = z.object({
  entries: z.array(auditEntry).meta({ description: 'The latest first' }),
  nextAfter: cursor.nullable().meta({ description: 'Send it as after to get the next page; null on the last page' }),
});

export type AuditEntry = z.output<typeof auditEntry>;
export type AuditQuery = z.output<typeof auditQuery>;
export type AuditAnswer = z.output<typeof auditAnswer>;
