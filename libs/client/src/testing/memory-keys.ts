import {
  type CreateKeyRequest,
  createKeyRequest,
  type KeyAnswer,
  keyLimits,
  type KeyLimitsRequest,
  keyName,
  type KeysAnswer,
  type KeysQuery,
  keysQuery,
  type NewKeyAnswer,
  readRequest,
  type RotateKeyRequest,
  rotateKeyRequest,
  RowmqError,
} from '@rowmq/contract';
import { randomBytes } from 'node:crypto';

/** The API keys of an in-memory broker, which lets everybody call without one. */
export class MemoryKeys {
  readonly #keys = new Map<string, KeyAnswer>();

  create(request: CreateKeyRequest): NewKeyAnswer {
    const { expiresAt, ...definition } = readRequest(createKeyRequest, request);
    const { name } = definition;
    if (this.#keys.has(name)) throw new RowmqError('key-exists', `The API key '${name}' exists already.`);
    const key = {
      ...definition,
      id: randomBytes(8).toString('hex'),
      createdAt: new Date().toISOString(),
      expiresAt: expiresAt === undefined ? null : new Date(expiresAt).toISOString(),
      lastUsedAt: null,
      oldSecretUntil: null,
    };
    this.#keys.set(name, key);
    return { ...key, secret: newSecret(key) };
  }

  /** Throws `key-not-found`, as the following calls do. */
  get(key: string): KeyAnswer {
    const name = readRequest(keyName, key);
    const found = this.#keys.get(name);
    if (found === undefined) throw new RowmqError('key-not-found', `There is no API key '${name}'; create it first.`);
    return found;
  }

  list(query: Partial<KeysQuery>): KeysAnswer {
    const { limit, after = '' } = readRequest(keysQuery, query);
    const later = [...this.#keys.values()]
      .filter(({ name }) => name > after)
      .toSorted((one, other) => (one.name < other.name ? -1 : 1));
    const keys = later.slice(0, limit);
    return { keys, nextAfter: later.length > limit ? (keys.at(-1)?.name ?? null) : null };
  }

  rotate(key: string, request: RotateKeyRequest): NewKeyAnswer {
    const { oldSecretSeconds } = readRequest(rotateKeyRequest, request);
    const until = new Date(Date.now() + oldSecretSeconds * 1000).toISOString();
    const rotated = { ...this.get(key), oldSecretUntil: oldSecretSeconds === 0 ? null : until };
    this.#keys.set(rotated.name, rotated);
    return { ...rotated, secret: newSecret(rotated) };
  }

  putLimits(key: string, request: KeyLimitsRequest): KeyAnswer {
    const { messagesPerSecond, longPolls } = readRequest(keyLimits, request);
    const before = this.get(key);
    const changed = {
      ...before,
      messagesPerSecond: messagesPerSecond === undefined ? before.messagesPerSecond : messagesPerSecond,
      longPolls: longPolls === undefined ? before.longPolls : longPolls,
    };
    this.#keys.set(changed.name, changed);
    return changed;
  }

  revoke(key: string): void {
    this.#keys.delete(this.get(key).name);
  }
}

function newSecret({ id }: Pick<KeyAnswer, 'id'>): string {
  return `rowmq_${id}_${randomBytes(32).toString('base64url')}`;
}
