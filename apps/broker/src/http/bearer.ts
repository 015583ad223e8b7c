import { createHash, timingSafeEqual } from 'node:crypto';

/** The secret in an `Authorization` header: `Bearer <secret>`. Undefined if there is none. */
export function bearerOf(authorization: string | undefined): string | undefined {
  return /^Bearer +(\S+) *$/i.exec(authorization ?? '')?.[1];
}

/** Digests have one length, so the time of a comparison reveals nothing, not even the length. */
export function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

/** Whether a caller gave the secret with this digest. */
export function isSecret(given: string | undefined, expected: Buffer): boolean {
  return given !== undefined && timingSafeEqual(digest(given), expected);
}
