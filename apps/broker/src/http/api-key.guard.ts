import { createHash, timingSafeEqual } from 'node:crypto';
import { type CanActivate, type ExecutionContext, Inject, Injectable } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import { RowmqError } from '@rowmq/contract';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';

/** Marks a controller whose calls need no API key. */
export const Open = Reflector.createDecorator({ transform: () => true });

/**
 * Lets the broker be used only with the API key, where one is set: `Authorization: Bearer <key>`. Only what is marked {@link Open} needs none: a look at the request's path
 * would be fooled by the many ways to write it.
 */
@Injectable()
export class ApiKeyGuard implements CanActivate {
  private readonly expected: Buffer | undefined;

  constructor(
    @Inject(BROKER_CONFIG) config: BrokerConfig,
    private readonly reflector: Reflector,
  ) {
    this.expected = config.adminKey === undefined ? undefined : digest(config.adminKey);
  }

  canActivate(context: ExecutionContext): boolean {
    if (this.expected === undefined) return true;
    if (this.reflector.get(Open, context.getClass())) return true;
    const request = context.switchToHttp().getRequest<{ headers: Record<string, string | undefined> }>();
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
