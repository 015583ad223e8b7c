import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto';

/*
 * A signature of AWS can only be checked by somebody who knows the secret itself. So brokers that
 * are told a key for it store the secrets of API keys encrypted, beside their digests.
 */

const CIPHER = 'aes-256-gcm';
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/**
 * Encrypts a secret: nonce, tag, text. The id of the API key is bound to it.
 *
 * @param key any text with enough entropy
 */
export function sealSecret(secret: string, id: string, key: string): Buffer {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv(CIPHER, keyOf(key), nonce, { authTagLength: TAG_BYTES }).setAAD(Buffer.from(id));
  const text = Buffer.concat([cipher.update(secret, 'utf8'), cipher.final()]);
  return Buffer.concat([nonce, cipher.getAuthTag(), text]);
}

/** Undefined: another key has sealed it, or somebody has changed it. */
export function openSecret(sealed: Buffer, id: string, key: string): string | undefined {
  try {
    const nonce = sealed.subarray(0, NONCE_BYTES);
    const decipher = createDecipheriv(CIPHER, keyOf(key), nonce, { authTagLength: TAG_BYTES })
      .setAAD(Buffer.from(id))
      .setAuthTag(sealed.subarray(NONCE_BYTES, NONCE_BYTES + TAG_BYTES));
    return decipher.update(sealed.subarray(NONCE_BYTES + TAG_BYTES), undefined, 'utf8') + decipher.final('utf8');
  } catch {
    return undefined;
  }
}

function keyOf(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
