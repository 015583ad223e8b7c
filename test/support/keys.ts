import type { CreateKeyRequest, NewKeyAnswer } from '@rowmq/contract';
import { expect } from 'vitest';
import { Api } from './api.js';

/** The API as the holder of a secret calls it. */
export function apiWith(url: string, secret: string): Api {
  return new Api(url, { authorization: `Bearer ${secret}` });
}

let count = 0;

/** A fresh key. */
export async function newKey(
  admin: Api,
  request: Omit<CreateKeyRequest, 'name'>,
): Promise<NewKeyAnswer & { api: Api }> {
  count += 1;
  const answer = await admin.post<NewKeyAnswer>('/v1/admin/keys', { name: `key-${count}`, ...request });
  expect(answer.status, answer.text).toBe(201);
  return { ...answer.json, api: apiWith(admin.url, answer.json.secret) };
}
