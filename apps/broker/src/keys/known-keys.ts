import { setTimeout as sleep } from 'node:timers/promises';
import { Inject, Injectable, Logger, type OnApplicationShutdown } from '@nestjs/common';
import { ADMIN_KEY_NAME, RowmqError } from '@rowmq/contract';
import { type ApiKey, ApiKeyRepository, digestOf, isSameDigest, keyIdOf } from '@rowmq/store';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';
import { bearerOf } from '../http/bearer.js';
import { Caller } from '../http/caller.js';
import { KeyLimits } from '../messages/key-limits.js';

/** The broker uses the keys that it read this long ago without a thought. */
const FRESH_MS = 1000;
/**
 * It uses older ones while it reads them again, and waits for that read once they are this old. So
 * a revocation takes effect within this time.
 */
const USABLE_MS = 3000;
/**
 * A secret that the broker does not know may be new, so it reads once more before it refuses the
 * secret. It begins no two reads for that within this time, however many such calls come.
 */
const PAUSE_OF_STRANGERS_MS = 200;
/**
 * While the database does not answer, keys stay valid for this long. A call of theirs can do little
 * then, but it gets the answer of its verb, and outlives a failover as before.
 */
const OUTAGE_MS = 30_000;
/** A call whose key is known waits this long for a read that does not come. */
const PATIENCE_MS = 1000;
/** After a read that failed, the next one begins this much later. */
const PAUSE_MS = 1000;
/** The broker writes down this often which keys were used. */
const NOTE_MS = 60_000;

type Match = 'current' | 'old' | 'unknown';

interface Known {
  readonly key: ApiKey;
  readonly caller: Caller;
}

/**
 * The API keys, as this process remembers them. It reads all of them, a thousand rows at most, and
 * no more than one read is under way. A flood of forged keys therefore costs five reads a second,
 * and needs no memory.
 */
@Injectable()
export class KnownKeys implements OnApplicationShutdown {
  private readonly logger = new Logger(KnownKeys.name);
  private readonly adminDigest: Buffer | undefined;
  /** The caller with the key of the settings. */
  readonly admin = new Caller(ADMIN_KEY_NAME, ['all']);
  private keys: ReadonlyMap<string, Known> = new Map();
  /** When the last read began that has succeeded, and the database's clock in it. */
  private read = { at: -Infinity, now: 0 };
  private reading: Promise<void> | undefined;
  private failed: { at: number; error: unknown } | undefined;
  private readonly used = new Set<string>();
  private noting: NodeJS.Timeout | undefined;

  constructor(
    private readonly repository: ApiKeyRepository,
    private readonly limits: KeyLimits,
    @Inject(BROKER_CONFIG) { adminKey }: Pick<BrokerConfig, 'adminKey'>,
  ) {
    this.adminDigest = adminKey === undefined ? undefined : digestOf(adminKey);
  }

  /**
   * Finds the caller of a request by its header `Authorization`. Throws `unauthorized`, or rejects
   * with it and with `database-unavailable`.
   */
  find(authorization: string | undefined): Caller | Promise<Caller> {
    const secret = bearerOf(authorization);
    if (secret === undefined)
      throw new RowmqError('unauthorized', 'Send the API key as `Authorization: Bearer <key>`.');
    return this.findByDigest(keyIdOf(secret) ?? null, digestOf(secret));
  }

  /** Finds the caller with a secret, and how to find it again. Rejects with `unauthorized`. */
  async identify(secret: string): Promise<{ caller: Caller; keyId: string | null; digest: Buffer }> {
    const keyId = keyIdOf(secret) ?? null;
    const digest = digestOf(secret);
    const caller = await this.findByDigest(keyId, digest);
    return { caller, keyId: caller === this.admin ? null : keyId, digest };
  }

  /**
   * Finds the caller whose secret has this digest. Throws or rejects as {@link find} does.
   * @param id the id of the key; null: it is the one of the settings, or none
   */
  findByDigest(keyId: string | null, digest: Buffer): Caller | Promise<Caller> {
    const id = keyId ?? undefined;
    const known = id === undefined ? undefined : this.keys.get(id);
    const secretIs = match(known, digest);
    if (secretIs === 'unknown' && this.adminDigest !== undefined && isSameDigest(digest, this.adminDigest))
      return this.admin;
    if (id === undefined) throw wrongKey();
    const age = performance.now() - this.read.at;
    if (secretIs === 'unknown' || age > USABLE_MS) return this.findAfterRead(id, digest);
    if (age > FRESH_MS) this.refresh().catch(() => undefined);
    return this.judge(known, secretIs, age);
  }

  /**
   * Finds a key by its id, for a caller who proves a secret by a signature. Rejects with
   * `unauthorized` and `database-unavailable`.
   *
   * @param isValid whether the caller knows this secret of the key: the present one, or the old one
   */
  async findSigner(id: string, isValid: (key: ApiKey, secret: 'current' | 'old') => boolean): Promise<Caller> {
    const age = performance.now() - this.read.at;
    if (!this.keys.has(id)) await this.readSince(performance.now());
    else if (age > USABLE_MS) await Promise.race([this.refresh().catch(() => undefined), sleep(PATIENCE_MS)]);
    else if (age > FRESH_MS) this.refresh().catch(() => undefined);
    if (performance.now() - this.read.at > OUTAGE_MS) await this.refresh();
    const judgeNow = (): Caller | undefined => {
      const known = this.keys.get(id);
      const secret = (['current', 'old'] as const).find((one) => known !== undefined && isValid(known.key, one));
      return secret === undefined ? undefined : this.judge(known, secret, performance.now() - this.read.at);
    };
    const caller = judgeNow();
    if (caller !== undefined) return caller;
    // The key may just have been rotated elsewhere.
    await this.readSince(performance.now());
    return judgeNow() ?? this.judge(undefined, 'unknown', 0);
  }

  /** Reads the keys again: one of them was changed here. */
  async changed(): Promise<void> {
    // The read that is under way may have begun before the change.
    await this.reading?.catch(() => undefined);
    // The change itself has succeeded. If this read fails, a later one learns of it.
    await this.refresh().catch(() => undefined);
  }

  async onApplicationShutdown(): Promise<void> {
    clearTimeout(this.noting);
    await this.noteUse();
  }

  private async findAfterRead(id: string, digest: Buffer): Promise<Caller> {
    const isKnown = match(this.keys.get(id), digest) !== 'unknown';
    if (!isKnown) await this.readSince(performance.now());
    else if (performance.now() - this.read.at > OUTAGE_MS) await this.refresh();
    else await Promise.race([this.refresh().catch(() => undefined), sleep(PATIENCE_MS, undefined, { ref: false })]);
    const known = this.keys.get(id);
    return this.judge(known, match(known, digest), performance.now() - this.read.at);
  }

  /** Throws `unauthorized` unless the secret is valid now. */
  private judge(known: Known | undefined, secretIs: Match, age: number): Caller {
    if (known === undefined || secretIs === 'unknown') throw wrongKey();
    const { key, caller } = known;
    const now = this.read.now + age;
    if (secretIs === 'old' && (key.oldUntil === null || key.oldUntil <= now))
      throw new RowmqError(
        'unauthorized',
        `The API key '${key.name}' was rotated, and its old secret has ended. Send the new one.`,
      );
    if (key.expiresAt !== null && key.expiresAt <= now)
      throw new RowmqError('unauthorized', `The API key '${key.name}' has expired. Ask for a new one.`);
    this.used.add(key.name);
    this.noting ??= setTimeout(() => void this.noteUse(), NOTE_MS).unref();
    return caller;
  }

  /** Makes sure that a read has begun at this moment or later, and has succeeded. */
  private async readSince(moment: number): Promise<void> {
    await this.reading?.catch(() => undefined);
    const pause = this.read.at + PAUSE_OF_STRANGERS_MS - performance.now();
    if (this.read.at < moment && pause > 0) await sleep(pause, undefined, { ref: false });
    if (this.read.at < moment) await this.refresh();
  }

  private async refresh(): Promise<void> {
    if (this.reading !== undefined) return this.reading;
    if (this.failed !== undefined && performance.now() - this.failed.at < PAUSE_MS) throw this.failed.error;
    this.reading = this.readAll().finally(() => (this.reading = undefined));
    return this.reading;
  }

  private async readAll(): Promise<void> {
    const at = performance.now();
    try {
      const { keys, now } = await this.repository.readAll();
      this.keys = new Map(keys.map((key) => [key.id, { key, caller: new Caller(key.name, key.scopes, key.patterns) }]));
      this.limits.replace(keys);
      this.read = { at, now };
      this.failed = undefined;
    } catch (error) {
      this.failed = { at: performance.now(), error };
      throw error;
    }
  }

  private async noteUse(): Promise<void> {
    this.noting = undefined;
    const names = [...this.used];
    this.used.clear();
    try {
      await this.repository.noteUse(names);
    } catch (error) {
      this.logger.warn(`Could not write down which API keys were used: ${String(error)}`);
    }
  }
}

/** Which of a key's secrets has this digest. */
function match(known: Known | undefined, digest: Buffer): Match {
  if (known === undefined) return 'unknown';
  const { key } = known;
  if (isSameDigest(digest, key.digest)) return 'current';
  return key.oldDigest !== null && isSameDigest(digest, key.oldDigest) ? 'old' : 'unknown';
}

function wrongKey(): RowmqError {
  return new RowmqError(
    'unauthorized',
    'The API key is not valid: it is wrong, or it was revoked. Ask an administrator for a key.',
  );
}
