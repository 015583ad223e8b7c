import type { KeyScope } from '@rowmq/contract';
import { hash, randomBytes, timingSafeEqual } from 'node:crypto';

/**
 * An API key. Its secret is `rowmq_<id>_<random>`: a broker finds the key by its id, and then
 * compares the SHA-256 of the whole secret. The random part has 256 bits, so nobody can guess it,
 * and a slow hash, as for passwords, would only slow down the broker.
 */
export interface ApiKey {
  readonly name: string;
  /** 16 hexadecimal digits. */
  readonly id: string;
  /** The SHA-256 of the secret, as {@link digestOf} makes it. */
  readonly digest: Buffer;
  /** The same of the secret before the last rotation. */
  readonly oldDigest: Buffer | null;
  readonly oldUntil: number | null;
  /** The secret as `sealSecret` wrote it. Null: the broker that made it had no key for that. */
  readonly sealedSecret: Buffer | null;
  readonly oldSealedSecret: Buffer | null;
  readonly scopes: readonly KeyScope[];
  /** None: every name. */
  readonly patterns: readonly string[];
  /** Null, as in the next: the broker's setting. */
  readonly messagesPerSecond: number | null;
  readonly longPolls: number | null;
  readonly createdAt: number;
  readonly expiresAt: number | null;
  readonly lastUsedAt: number | null;
}

const ID_BYTES = 8;
const RANDOM_BYTES = 32;
const SECRET = new RegExp(`^rowmq_([0-9a-f]{${ID_BYTES * 2}})_[A-Za-z0-9_-]{43}$`);

export function newKeyId(): string {
  return randomBytes(ID_BYTES).toString('hex');
}

export function newSecret(id: string): string {
  return `rowmq_${id}_${randomBytes(RANDOM_BYTES).toString('base64url')}`;
}

/** The id in a secret, or undefined for a text of another form. */
export function keyIdOf(secret: string): string | undefined {
  return SECRET.exec(secret)?.[1];
}

/**
 * The SHA-256 of a secret, as hexadecimal digits. For Node, a buffer of digits costs half as much
 * as the bytes themselves.
 */
export function digestOf(secret: string): Buffer {
  return Buffer.from(hash('sha256', secret), 'latin1');
}

/** Compares two digests in constant time. */
export function isSameDigest(one: Buffer, other: Buffer): boolean {
  return timingSafeEqual(one, other);
}
