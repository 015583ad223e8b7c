import { z } from 'zod';
import { LIMITS } from './limits.js';
import { queueName, timestamp } from './schemas.js';

/* API keys: who may call what, on which queues and topics. */

/**
 * The kinds of calls that a key may be allowed. `read` is every GET of the admin API, and `admin`
 * includes it.
 */
export const KEY_SCOPES = ['enqueue', 'dequeue', 'read', 'admin', 'metrics'] as const;
export type KeyScope = (typeof KEY_SCOPES)[number];

/** The name of the key that the settings of a broker hold, in the audit. */
export const ADMIN_KEY_NAME = 'ROWMQ_ADMIN_KEY';

export const keyName = queueName.meta({ example: 'shop', description: 'Name of an API key' });

/** A star elsewhere would make it hard to see which names two patterns share. */
export const keyPattern = z
  .string()
  .max(81)
  .regex(
    /^[A-Za-z0-9._-]*[A-Za-z0-9._*-]$/,
    'must be the name of a queue or topic, or the beginning of names with a * at its end, such as orders.*',
  )
  .meta({ example: 'orders.*', description: 'A name, or the beginning of names followed by *' });

const scopes = z
  .array(z.enum(KEY_SCOPES))
  .min(1, 'must name a scope, or the key could call nothing')
  .refine((all) => new Set(all).size === all.length, 'must name each scope once')
  .meta({ description: 'The kinds of calls that the key may make', example: ['enqueue', 'dequeue'] });
const patterns = z
  .array(keyPattern)
  .max(LIMITS.keyPatterns)
  .meta({
    description: 'The queues and topics that the key reaches; none: all',
    example: ['orders.*'],
  });
const expiresAt = z.iso.datetime({
  offset: true,
  error: 'must be a time in ISO 8601 with a time zone, such as 2027-11-22T00:00:00Z',
});

const messagesPerSecond = z.int().min(1).max(LIMITS.maxMessagesPerSecond).nullable().meta({
  description: "Messages a second that the key may send to each broker; null: the broker's setting",
  example: 100,
});
const longPolls = z.int().min(1).max(LIMITS.maxLongPolls).nullable().meta({
  description: "Dequeues of the key that may wait on each broker; null: the broker's setting",
  example: 20,
});

export const createKeyRequest = z
  .strictObject({
    name: keyName.refine((name) => name !== ADMIN_KEY_NAME, `is the name of the key in the broker's settings`),
    scopes,
    patterns: patterns.default([]),
    messagesPerSecond: messagesPerSecond.default(null),
    longPolls: longPolls.default(null),
    expiresAt: expiresAt.optional().meta({
      description: 'From this time on, the key is refused. Never when absent',
      example: '2027-11-22T00:00:00Z',
    }),
  })
  .meta({ example: { name: 'shop', scopes: ['enqueue', 'dequeue'], patterns: ['orders.*'] } });

/** A field that is absent stays as it is. */
export const keyLimits = z
  .strictObject({ messagesPerSecond: messagesPerSecond.optional(), longPolls: longPolls.optional() })
  .meta({ example: { messagesPerSecond: 100, longPolls: null } });

export const rotateKeyRequest = z
  .strictObject({
    oldSecretSeconds: z.int().min(0).max(LIMITS.rotationSeconds).default(LIMITS.rotationSecondsDefault).meta({
      description: 'The old secret stays valid for this long; 0 ends it now',
    }),
  })
  .default({ oldSecretSeconds: LIMITS.rotationSecondsDefault })
  .meta({ example: { oldSecretSeconds: 3600 } });

export const keyAnswer = z.object({
  name: keyName,
  id: z.string().meta({ example: '0f3c9a7e52d1b846', description: 'The part of the secret that is none' }),
  scopes,
  patterns,
  messagesPerSecond,
  longPolls,
  createdAt: timestamp,
  expiresAt: timestamp.nullable().meta({ description: 'From this time on, the key is refused; null: never' }),
  lastUsedAt: timestamp.nullable().meta({ description: 'When it was used, to the minute; null: never' }),
  oldSecretUntil: timestamp
    .nullable()
    .meta({ description: 'Until then the secret before the last rotation is valid, too; null: it is not' }),
});

/** The only answer that ever shows the secret. */
export const newKeyAnswer = keyAnswer.extend({
  secret: z.string().meta({
    description: 'Send it as `Authorization: Bearer <secret>`. Nobody can show it again',
    example: 'rowmq_0f3c9a7e52d1b846_3q2-7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA',
  }),
});

export const keysQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(LIMITS.page).default(LIMITS.page),
  after: keyName.optional().meta({ description: 'The nextAfter of the previous page' }),
});
export const keysAnswer = z.object({
  keys: z.array(keyAnswer),
  nextAfter: keyName.nullable().meta({ description: 'Send it as after to get the next page; null on the last page' }),
});

export type CreateKeyRequest = z.input<typeof createKeyRequest>;
export type KeyLimitsRequest = z.input<typeof keyLimits>;
export type RotateKeyRequest = z.input<typeof rotateKeyRequest>;
/** A request with its defaults. */
export type KeyDefinition = z.output<typeof createKeyRequest>;
export type KeyAnswer = z.output<typeof keyAnswer>;
export type NewKeyAnswer = z.output<typeof newKeyAnswer>;
export type KeysQuery = z.output<typeof keysQuery>;
export type KeysAnswer = z.output<typeof keysAnswer>;
