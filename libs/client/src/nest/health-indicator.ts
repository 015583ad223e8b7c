import { Inject, Injectable } from '@nestjs/common';
import { BrokerClient } from '../broker-client.js';
import { reasonOf } from '../consumer/thrown.js';
import { ConsumersService } from './consumers.service.js';

/** The result of a check, as `@nestjs/terminus` takes it. */
export type RowmqHealth = Record<string, { status: 'up' | 'down' } & Record<string, unknown>>;

const CHECK_MS = 2000;

/**
 * For the health checks of `@nestjs/terminus` 11 and 12: `health.check([() => rowmq.check()])`. It
 * needs nothing of terminus.
 */
@Injectable()
export class RowmqHealthIndicator {
  readonly #client: BrokerClient;
  readonly #consumers: ConsumersService;

  constructor(@Inject(BrokerClient) client: BrokerClient, @Inject(ConsumersService) consumers: ConsumersService) {
    this.#client = client;
    this.#consumers = consumers;
  }

  /**
   * Up if a broker answers that it is ready, and every consumer has started. A paused consumer is
   * not a fault. The answer comes within two seconds. Never rejects.
   */
  async check(key = 'rowmq'): Promise<RowmqHealth> {
    const consumers = this.#consumers.all();
    const stopped = consumers.filter(({ isStarted }) => !isStarted).map(({ queue }) => queue);
    const paused = consumers.filter(({ isPaused }) => isPaused).map(({ queue }) => queue);
    const detail = { ...(paused.length > 0 && { paused }), ...(stopped.length > 0 && { stopped }) };
    try {
      await this.#client.ready({ signal: AbortSignal.timeout(CHECK_MS), retrySeconds: CHECK_MS / 1000 });
      return { [key]: { status: stopped.length === 0 ? 'up' : 'down', ...detail } };
    } catch (error) {
      return { [key]: { status: 'down', message: reasonOf(error), ...detail } };
    }
  }
}
