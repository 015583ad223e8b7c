import { Inject, Injectable, Logger } from '@nestjs/common';
import { ADMIN_KEY_NAME, RowmqError } from '@rowmq/contract';
import { type ApiKey, openSecret } from '@rowmq/store';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';
import { ANYBODY, type Caller } from '../http/caller.js';
import { FailedAttempts } from '../keys/failed-attempts.js';
import { KnownKeys } from '../keys/known-keys.js';
import { checkSignature, readSignature, type Signature, type SignedRequest } from './sigv4.js';
import { SqsError } from './sqs-error.js';

/** The signer of a request. */
export interface Signer {
  caller: Caller;
  /** Undefined: the broker asks for no signatures. */
  accessKey: string | undefined;
}

/**
 * Keeps web pages of other origins from making a browser call a broker that asks for no keys.
 * Nest's protection refuses them everything but GET, which in SQS can change and delete.
 */
function refuseWebPages({ method, headers }: SignedRequest): void {
  if (method !== 'GET') return;
  const { 'sec-fetch-site': site, 'user-agent': agent = '' } = headers;
  // Browsers leave out the site if they are old, or if the host is neither local nor has TLS.
  const isForeign = site === undefined ? agent.startsWith('Mozilla/') : site !== 'same-origin' && site !== 'none';
  if (isForeign)
    throw new SqsError(
      'AccessDenied',
      'The request comes from a web page of another origin, and this broker asks for no API keys. Programs that name themselves as a browser does must send POST.',
      { problem: 'forbidden' },
    );
}

/**
 * Decides who may call, by the signature of a request. Each API key is a pair: its id is the access
 * key, and its secret is the secret.
 */
@Injectable()
export class SqsAccess {
  private readonly logger = new Logger('sqs');

  constructor(
    private readonly keys: KnownKeys,
    private readonly attempts: FailedAttempts,
    @Inject(BROKER_CONFIG) private readonly config: Pick<BrokerConfig, 'needsKeys' | 'adminKey' | 'sqs'>,
  ) {}

  /** Writes into the log who may call. */
  announce(): void {
    const { needsKeys, sqs } = this.config;
    if (!needsKeys) this.logger.log('accepts any signature, because the broker asks for no API keys');
    else if (sqs.secretKey === undefined)
      this.logger.log('accepts signatures of ROWMQ_ADMIN_KEY only, because ROWMQ_SQS_SECRET_KEY is not set');
  }

  /**
   * Throws `MissingAuthenticationToken`, `IncompleteSignature`, `InvalidClientTokenId`,
   * `SignatureDoesNotMatch`, `RequestExpired`, and `AccessDenied` for web pages.
   */
  async check(request: SignedRequest, address: string): Promise<Signer> {
    if (!this.config.needsKeys) {
      refuseWebPages(request);
      return { caller: ANYBODY, accessKey: undefined };
    }
    try {
      const signature = readSignature(request);
      return { caller: await this.callerOf(request, signature, address), accessKey: signature.accessKey };
    } catch (error) {
      const isRefusal = error instanceof SqsError || (error instanceof RowmqError && error.code === 'unauthorized');
      if (!isRefusal) throw error;
      const counted = this.attempts.count(address, new RowmqError('unauthorized', error.message));
      throw counted.code === 'too-many-attempts' ? counted : error;
    }
  }

  private async callerOf(request: SignedRequest, signature: Signature, address: string): Promise<Caller> {
    const now = Date.now();
    if (signature.accessKey === ADMIN_KEY_NAME && this.config.adminKey !== undefined) {
      this.attempts.refuseIfTooMany(address);
      checkSignature(request, signature, [this.config.adminKey], now);
      return this.keys.admin;
    }
    let mismatch: unknown;
    const isValid = (key: ApiKey, which: 'current' | 'old'): boolean => {
      const secret = this.secretOf(key, which);
      if (secret === undefined) return false;
      try {
        checkSignature(request, signature, [secret], now);
        return true;
      } catch (error) {
        mismatch ??= error;
        return false;
      }
    };
    try {
      return await this.keys.findSigner(signature.accessKey, isValid);
    } catch (error) {
      throw mismatch ?? error;
    }
  }

  private secretOf(key: ApiKey, which: 'current' | 'old'): string | undefined {
    const sealed = which === 'current' ? key.sealedSecret : key.oldSealedSecret;
    const { secretKey } = this.config.sqs;
    return sealed === null || secretKey === undefined ? undefined : openSecret(sealed, key.id, secretKey);
  }
}
