import { Inject, Injectable } from '@nestjs/common';
import { reasonOf } from '../consumer/thrown.js';
import { ConsumersService } from './consumers.service.js';
import { QueuesService } from './queues.service.js';
import { DEFAULT_CONNECTION } from './tokens.js';

/** The result of a check, as `@nestjs/terminus` takes it. */
export type RowmqHealth = Record<string, { status: 'up' | 'down' } & Record<string, unknown>>;

const CHECK_MS = 2000;

/**
 * For the health checks of `@nestjs/terminus` 11 and 12: `health.check([() => rowmq.check()])`. It
 * needs nothing of terminus.
 */
@Injectable()
export class RowmqHealthIndicator {
  readonly #queues: QueuesService;
  readonly #consumers: ConsumersService;

  constructor(@Inject(QueuesService) queues: QueuesService, @Inject(ConsumersService) consumers: ConsumersService) {
    this.#queues = queues;
    this.#consumers = consumers;
  }

  /**
   * Up if a broker of each connection answers that it is ready, and every consumer has started. A
   * paused consumer is not a fault. The answer comes within two seconds. Never rejects.
   */
  async check(key = 'rowmq'): Promise<RowmqHealth> {
    const consumers = this.#consumers.all();
    const stopped = consumers.filter(({ isStarted }) => !isStarted).map(({ queue }) => queue);
    const paused = consumers.filter(({ isPaused }) => isPaused).map(({ queue }) => queue);
    const faults = await this.#faults();
    const detail = {
      ...(faults.length > 0 && { message: faults.join(' ') }),
      ...(paused.length > 0 && { paused }),
      ...(stopped.length > 0 && { stopped }),
    };
    return { [key]: { status: faults.length + stopped.length === 0 ? 'up' : 'down', ...detail } };
  }

  /** Why connections are not ready. All are asked at the same time. */
  async #faults(): Promise<string[]> {
    const connections = [...this.#queues.connections().values()];
    const options = { signal: AbortSignal.timeout(CHECK_MS), retrySeconds: CHECK_MS / 1000 };
    const answers = await Promise.all(
      connections.map(async ({ name, client }) => {
        try {
          await client.ready(options);
          return [];
        } catch (error) {
          return [name === DEFAULT_CONNECTION ? reasonOf(error) : `Connection '${name}': ${reasonOf(error)}`];
        }
      }),
    );
    return answers.flat();
  }
}
