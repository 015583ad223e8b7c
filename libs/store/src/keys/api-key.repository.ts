import { type KeyDefinition, type KeyLimitsRequest, type KeyScope, LIMITS, RowmqError } from '@rowmq/contract';
import { In, MoreThan } from 'typeorm';
import { NOW_MS, timeOf } from '../database/clock.js';
import type { Database } from '../database/database.js';
import { ApiKeyEntity } from '../entities/index.js';
import { TAKE_TURN } from '../queues/take-turn.js';
import { type ApiKey, digestOf, newKeyId, newSecret } from './api-key.js';
import { sealSecret } from './sealed-secret.js';

/** All keys, and the time at which they were read, on the database's clock. */
export interface ApiKeys {
  readonly keys: readonly ApiKey[];
  readonly now: number;
}

/** API keys, as administrators make them and brokers check them. */
export class ApiKeyRepository {
  constructor(private readonly database: Database) {}

  /**
   * Creates a key. Returns its secret, which is stored nowhere. Throws `key-exists`, and
   * `invalid-request` if there are too many keys.
   *
   * Locks: the reaper's lease row, so that creators take turns and never pass the limit together;
   * the new row. A COMMIT without an answer is repeated with the same id and secret.
   * @param sealingKey encrypts a copy of the secret, to check signatures with
   */
  async create(definition: KeyDefinition, sealingKey?: string): Promise<{ key: ApiKey; secret: string }> {
    const { name } = definition;
    const id = newKeyId();
    const secret = newSecret(id);
    await this.database.transaction(async (tx) => {
      await tx.read(TAKE_TURN);
      const known = await tx.manager.findOneBy(ApiKeyEntity, { name });
      // The COMMIT of an earlier attempt took effect, and its answer was lost.
      if (known?.id === id) return;
      if (known !== null) throw keyExists(name);
      const now = await timeOf(tx);
      const expiresAt = definition.expiresAt === undefined ? null : Date.parse(definition.expiresAt);
      if (expiresAt !== null && expiresAt <= now)
        throw new RowmqError('invalid-request', 'expiresAt: must be later than now, or the key could never be used.');
      if ((await tx.manager.count(ApiKeyEntity)) >= LIMITS.keys)
        throw new RowmqError(
          'invalid-request',
          `There are ${LIMITS.keys} API keys, as many as RowMQ takes; revoke some.`,
        );
      await tx.manager.insert(ApiKeyEntity, {
        name,
        id,
        secretDigest: digestOf(secret).toString(),
        oldDigest: null,
        oldUntil: null,
        sealedSecret: sealed(secret, id, sealingKey),
        oldSealedSecret: null,
        scopes: definition.scopes.join(','),
        patterns: definition.patterns.join(','),
        messagesPerSecond: definition.messagesPerSecond,
        longPolls: definition.longPolls,
        createdAt: now,
        expiresAt,
        lastUsedAt: null,
      });
    });
    return { key: await this.get(name), secret };
  }

  /** Throws `key-not-found`. */
  async get(name: string): Promise<ApiKey> {
    const row = await this.database.manager.findOneBy(ApiKeyEntity, { name });
    if (row === null) throw keyNotFound(name);
    return toKey(row);
  }

  /** A page of keys by name, and whether there are more. */
  async list(after: string, limit: number): Promise<{ keys: ApiKey[]; isLast: boolean }> {
    const found = await this.database.manager.find(ApiKeyEntity, {
      where: { name: MoreThan(after) },
      order: { name: 'ASC' },
      take: limit + 1,
    });
    return { keys: found.slice(0, limit).map(toKey), isLast: found.length <= limit };
  }

  /** Every key, with the time by which the caller decides whether it has expired. */
  async readAll(): Promise<ApiKeys> {
    const [rows, now] = await this.database.all([
      {
        sql: `SELECT name, id, secret_digest AS secretDigest, old_digest AS oldDigest, old_until AS oldUntil,
                sealed_secret AS sealedSecret, old_sealed_secret AS oldSealedSecret, scopes, patterns,
                messages_per_second AS messagesPerSecond, long_polls AS longPolls,
                created_at AS createdAt, expires_at AS expiresAt, last_used_at AS lastUsedAt
              FROM api_key
              LIMIT ${LIMITS.keys}`,
      },
      { sql: `SELECT ${NOW_MS} AS now` },
    ]);
    return { keys: (rows as ApiKeyEntity[]).map(toKey), now: (now as [{ now: number }])[0].now };
  }

  /**
   * Gives a key a new secret. The old one stays valid for some time, and the one before that ends
   * now. Throws `key-not-found`.
   *
   * Locks: the key's row.
   */
  async rotate(name: string, oldSecretSeconds: number, sealingKey?: string): Promise<{ key: ApiKey; secret: string }> {
    let secret = '';
    await this.database.transaction(async (tx) => {
      const [row] = await tx.read<{ id: string; digest: string; sealedSecret: Buffer | null; now: number }>(
        `SELECT id, secret_digest AS digest, sealed_secret AS sealedSecret, ${NOW_MS} AS now
         FROM api_key FORCE INDEX (PRIMARY)
         WHERE name = ?
         FOR UPDATE`,
        [name],
      );
      if (row === undefined) throw keyNotFound(name);
      // The COMMIT of an earlier attempt took effect, and its answer was lost.
      if (secret !== '' && row.digest === digestOf(secret).toString()) return;
      secret = newSecret(row.id);
      const old =
        oldSecretSeconds === 0
          ? { oldDigest: null, oldUntil: null, oldSealedSecret: null }
          : {
              oldDigest: row.digest,
              oldUntil: row.now + oldSecretSeconds * 1000,
              oldSealedSecret: row.sealedSecret,
            };
      await tx.manager.update(
        ApiKeyEntity,
        { name },
        {
          ...old,
          secretDigest: digestOf(secret).toString(),
          sealedSecret: sealed(secret, row.id, sealingKey),
        },
      );
    });
    return { key: await this.get(name), secret };
  }

  /**
   * Changes the limits that are given. Throws `key-not-found`.
   *
   * Locks: the key's row.
   */
  async putLimits(name: string, { messagesPerSecond, longPolls }: KeyLimitsRequest): Promise<ApiKey> {
    const limits = {
      ...(messagesPerSecond !== undefined && { messagesPerSecond }),
      ...(longPolls !== undefined && { longPolls }),
    };
    if (Object.keys(limits).length > 0) await this.database.manager.update(ApiKeyEntity, { name }, limits);
    return this.get(name);
  }

  /**
   * Removes a key for good. Throws `key-not-found`.
   *
   * Locks: the key's row.
   */
  async revoke(name: string): Promise<void> {
    let found: string | undefined;
    await this.database.transaction(async (tx) => {
      const [row] = await tx.read<{ id: string }>(
        'SELECT id FROM api_key FORCE INDEX (PRIMARY) WHERE name = ? FOR UPDATE',
        [name],
      );
      // An earlier attempt revoked the key, and a new one may have its name.
      if (tx.commitUnknown && row?.id !== found) return;
      if (row === undefined) throw keyNotFound(name);
      found = row.id;
      await tx.finish([{ sql: 'DELETE FROM api_key WHERE name = ?', values: [name] }]);
    });
  }

  /**
   * Notes that keys were used until now.
   *
   * Locks: rows of keys by name, ascending. Nobody who holds one of them waits for another.
   */
  async noteUse(names: readonly string[]): Promise<void> {
    if (names.length === 0) return;
    await this.database.manager.update(ApiKeyEntity, { name: In([...names]) }, { lastUsedAt: () => NOW_MS });
  }
}

function sealed(secret: string, id: string, key: string | undefined): Buffer | null {
  return key === undefined ? null : sealSecret(secret, id, key);
}

function toKey({ secretDigest, oldDigest, scopes, patterns, ...row }: ApiKeyEntity): ApiKey {
  return {
    ...row,
    digest: Buffer.from(secretDigest, 'latin1'),
    oldDigest: oldDigest === null ? null : Buffer.from(oldDigest, 'latin1'),
    scopes: scopes.split(',') as KeyScope[],
    patterns: patterns === '' ? [] : patterns.split(','),
  };
}

function keyNotFound(name: string): RowmqError {
  return new RowmqError('key-not-found', `There is no API key '${name}'; create it with POST /v1/admin/keys.`);
}

function keyExists(name: string): RowmqError {
  return new RowmqError(
    'key-exists',
    `The API key '${name}' exists already; rotate it with POST /v1/admin/keys/${name}/rotate, or take another name.`,
  );
}
