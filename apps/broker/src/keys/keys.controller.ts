import { Body, Controller, Delete, Get, HttpCode, Inject, Param, Post, Put, Query } from '@nestjs/common';
import { ApiBearerAuth, ApiBody, ApiTags } from '@nestjs/swagger';
import {
  createKeyRequest,
  keyAnswer,
  type KeyAnswer,
  type KeyDefinition,
  keyLimits,
  type KeyLimitsRequest,
  keyName,
  keysAnswer,
  type KeysAnswer,
  keysQuery,
  type KeysQuery,
  newKeyAnswer,
  type NewKeyAnswer,
  rotateKeyRequest,
} from '@rowmq/contract';
import { type ApiKey, ApiKeyRepository } from '@rowmq/store';
import type { z } from 'zod';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';
import { ApiCall } from '../http/api-call.js';
import { Audited, type Changes } from '../http/changes.js';
import type { Needs } from '../http/needs.js';
import { formatTime } from '../messages/message.codec.js';
import { KnownKeys } from './known-keys.js';

/** A key that makes keys could make one that reaches everything. */
const NEEDS: Needs = { scope: 'admin', reach: 'everything' };

/** API keys: who may call what. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('v1/admin/keys')
export class KeysController {
  constructor(
    private readonly keys: ApiKeyRepository,
    private readonly known: KnownKeys,
    @Inject(BROKER_CONFIG) private readonly config: Pick<BrokerConfig, 'sqs'>,
  ) {}

  @Post()
  @ApiCall({
    summary: 'Create an API key. No other answer shows its secret',
    needs: NEEDS,
    status: 201,
    answer: newKeyAnswer,
    problems: ['invalid-request', 'key-exists'],
  })
  async createKey(
    @Body({ schema: createKeyRequest }) definition: KeyDefinition,
    @Audited() changes: Changes,
  ): Promise<NewKeyAnswer> {
    const { key, secret } = await this.keys.create(definition, this.config.sqs.secretKey);
    changes.report(null, toAnswer(key));
    await this.known.changed();
    return { ...toAnswer(key), secret };
  }

  @Get()
  @ApiCall({
    summary: 'A page of API keys by name',
    needs: NEEDS,
    hasQuery: true,
    status: 200,
    answer: keysAnswer,
    problems: ['invalid-request'],
  })
  async listKeys(@Query({ schema: keysQuery }) { after = '', limit }: KeysQuery): Promise<KeysAnswer> {
    const { keys, isLast } = await this.keys.list(after, limit);
    return { keys: keys.map(toAnswer), nextAfter: isLast ? null : (keys.at(-1)?.name ?? null) };
  }

  @Get(':key')
  @ApiCall({
    summary: 'One API key',
    needs: NEEDS,
    status: 200,
    answer: keyAnswer,
    problems: ['invalid-request', 'key-not-found'],
  })
  async getKey(@Param('key', { schema: keyName }) name: string): Promise<KeyAnswer> {
    return toAnswer(await this.keys.get(name));
  }

  @Post(':key/rotate')
  @HttpCode(200)
  @ApiCall({
    summary: 'Give an API key a new secret; the old one stays valid for a time',
    needs: NEEDS,
    status: 200,
    answer: newKeyAnswer,
    problems: ['invalid-request', 'key-not-found'],
  })
  @ApiBody({ required: false })
  async rotateKey(
    @Param('key', { schema: keyName }) name: string,
    @Body({ schema: rotateKeyRequest }) { oldSecretSeconds }: z.output<typeof rotateKeyRequest>,
    @Audited() changes: Changes,
  ): Promise<NewKeyAnswer> {
    const before = await this.keys.get(name);
    const { key, secret } = await this.keys.rotate(name, oldSecretSeconds, this.config.sqs.secretKey);
    changes.report(toAnswer(before), toAnswer(key));
    changes.outcome({ secret: 'rotated' });
    await this.known.changed();
    return { ...toAnswer(key), secret };
  }

  @Put(':key/limits')
  @ApiCall({
    summary: 'Change the limits of an API key: every broker knows them within three seconds',
    needs: NEEDS,
    status: 200,
    answer: keyAnswer,
    problems: ['invalid-request', 'key-not-found'],
  })
  @ApiBody({ required: false })
  async putKeyLimits(
    @Param('key', { schema: keyName }) name: string,
    @Body({ schema: keyLimits.default({}) }) limits: KeyLimitsRequest,
    @Audited() changes: Changes,
  ): Promise<KeyAnswer> {
    const before = await this.keys.get(name);
    const after = toAnswer(await this.keys.putLimits(name, limits));
    changes.report(toAnswer(before), after);
    await this.known.changed();
    return after;
  }

  @Delete(':key')
  @HttpCode(204)
  @ApiCall({
    summary: 'Revoke an API key for good: every broker refuses it within three seconds',
    needs: NEEDS,
    status: 204,
    problems: ['invalid-request', 'key-not-found'],
  })
  async revokeKey(@Param('key', { schema: keyName }) name: string, @Audited() changes: Changes): Promise<void> {
    const before = await this.keys.get(name);
    await this.keys.revoke(name);
    changes.report(toAnswer(before), null);
    await this.known.changed();
  }
}

function toAnswer({ createdAt, expiresAt, lastUsedAt, oldUntil, ...key }: ApiKey): KeyAnswer {
  const { name, id, scopes, patterns, messagesPerSecond, longPolls } = key;
  return {
    name,
    id,
    scopes: [...scopes],
    patterns: [...patterns],
    messagesPerSecond,
    longPolls,
    createdAt: formatTime(createdAt),
    expiresAt: expiresAt === null ? null : formatTime(expiresAt),
    lastUsedAt: lastUsedAt === null ? null : formatTime(lastUsedAt),
    oldSecretUntil: oldUntil === null ? null : formatTime(oldUntil),
  };
}
