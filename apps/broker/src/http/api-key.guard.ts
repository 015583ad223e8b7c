import { createHash, timingSafeEqual } from 'node:crypto';
import { type CanActivate, type ExecutionContext, Inject, Injectable } from '@nestjs/common';
import { RowmqError } from '@rowmq/contract';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';

/** Lets `/v1` be used only with the API key, where one is set: `Authorization: Bearer <key>`. Health, metrics and docs are open. */
@Injectable()
export class ApiKeyGuard implements CanActivate {
  private readonly expected: Buffer | undefined;

  constructor(@Inject(BROKER_CONFIG) config: BrokerConfig) {
    this.expected = config.adminKey === undefined ? undefined : digest(config.adminKey);
  }

  canActivate(context: ExecutionContext): boolean {
    if (this.expected === undefined) return true;
    const request = context.switchToHttp().getRequest<{ url: string; headers: Record<string, string | undefined> }>();
    if (!request.url.startsWith('/v1/')) return true;
    const given = /^Bearer +(\S+) *$/i.exec(request.headers['authorization'] ?? '')?.[1];
    // Digests have one length, so that the comparison's time tells nothing, not even the key's length.
    if (given !== undefined && timingSafeEqual(digest(given), this.expected)) return true;
    throw new RowmqError(
      'unauthorized',
      given === undefined
        ? 'Send the API key as `Authorization: Bearer <key>`.'
        : 'The API key is not the one this broker was started with.',
    );
  }
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
