import { QueueConsumer, RowmqHttpClient } from '@rowmq/client/core';
import type { Tally } from '@rowmq/load';
import type { Quantiles } from './figures.js';
import type { ClosedShape, Load } from './load.js';

/**
 * The client's consumers empty a queue; their handlers do nothing. There are as many of them, with
 * batches as large, as a `drain` of bare calls has.
 */
export class ClientDrain implements Load {
  readonly ended: Promise<void>;
  readonly isIdle = false;
  private readonly consumers: QueueConsumer[];
  private readonly client: RowmqHttpClient;

  constructor(
    url: string,
    queue: string,
    { consumers, batch }: ClosedShape,
    private readonly tally: Tally<string | number>,
  ) {
    this.client = new RowmqHttpClient({ url });
    const handler = {
      message: (_: unknown, message: { id: string }): void => {
        tally.return([message.id]);
      },
    };
    this.consumers = Array.from(
      { length: consumers },
      () =>
        new QueueConsumer(this.client, queue, handler, {
          concurrency: batch,
          batchSize: batch,
          leaseSeconds: 600,
          format: 'bytes',
        }),
    );
    for (const consumer of this.consumers) consumer.start();
    // The last acks included.
    this.ended = tally.allReturned().then(() => this.stopConsumers());
  }

  done(): number {
    return this.tally.returned;
  }

  takeLatencies(): Record<string, Quantiles> {
    return {};
  }

  private async stopConsumers(): Promise<void> {
    await Promise.all(this.consumers.map((consumer) => consumer.stop()));
  }

  async stop(): Promise<void> {
    await this.ended;
    await this.client.close();
    this.tally.assertBalanced();
  }
}
