import { z } from 'zod';
import { KEY_SCOPES } from './keys.js';

/* The dashboard's sessions. */

/** A request that relies on a session must have it. No page of another origin can send it. */
export const SESSION_HEADER = 'x-rowmq-dashboard';

export const loginRequest = z.strictObject({
  key: z.string().min(1, 'must be an API key').max(300),
});

export const sessionAnswer = z.object({
  version: z.string(),
  /** Whether the broker asks for API keys. */
  needsKey: z.boolean(),
  /** Null: nobody is logged in. */
  rights: z
    .object({
      /** Null: the broker asks for no keys. */
      key: z.string().nullable(),
      scopes: z.array(z.enum(KEY_SCOPES)),
      patterns: z.array(z.string()),
    })
    .nullable(),
});

export type LoginRequest = z.output<typeof loginRequest>;
export type SessionAnswer = z.output<typeof sessionAnswer>;
