import { Inject, Injectable } from '@nestjs/common';
import type { ApiKey } from '@rowmq/store';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';

export type KeyLimitDefaults = Pick<BrokerConfig, 'keyMessagesPerSecond' | 'keyLongPolls'>;
type LimitedKey = Pick<ApiKey, 'name' | 'messagesPerSecond' | 'longPolls'>;

/** A limit of a key, and the field or setting that has it. */
export interface KeyLimit {
  readonly limit: number;
  readonly from: string;
}

/** The limits of API keys: their own, or else those of the settings, which hold for every key. */
@Injectable()
export class KeyLimits {
  /** The keys that have limits of their own. */
  private own: ReadonlyMap<string, LimitedKey> = new Map();
  private readonly messages: KeyLimit | undefined;
  private readonly polls: KeyLimit | undefined;

  constructor(@Inject(BROKER_CONFIG) { keyMessagesPerSecond, keyLongPolls }: KeyLimitDefaults) {
    this.messages = limitFrom('ROWMQ_KEY_MESSAGES_PER_SECOND', keyMessagesPerSecond);
    this.polls = limitFrom('ROWMQ_KEY_LONG_POLLS', keyLongPolls);
  }

  /** The broker has read all keys again. */
  replace(keys: readonly LimitedKey[]): void {
    const limited = keys.filter(({ messagesPerSecond, longPolls }) => (messagesPerSecond ?? longPolls) !== null);
    this.own = new Map(limited.map((key) => [key.name, key]));
  }

  /** Messages a second that a key may send. Null: the broker asks for no keys. */
  messagesPerSecond(key: string | null): KeyLimit | undefined {
    if (key === null) return undefined;
    return limitFrom('messagesPerSecond', this.own.get(key)?.messagesPerSecond) ?? this.messages;
  }

  /** Dequeues of a key that may wait. */
  longPolls(key: string | null): KeyLimit | undefined {
    if (key === null) return undefined;
    return limitFrom('longPolls', this.own.get(key)?.longPolls) ?? this.polls;
  }
}

function limitFrom(from: string, limit: number | null | undefined): KeyLimit | undefined {
  return limit === null || limit === undefined ? undefined : { limit, from };
}
