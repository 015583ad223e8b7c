import { QueueConsumer, RowmqHttpClient } from '@rowmq/client/core';
import type { Quantiles } from './figures.js';
import { Gate } from './gate.js';
import type { Ledger } from './ledger.js';
import type { Load, LoadShape } from './load.js';

/** What a queue holds, taken by the client's consumers, whose handlers do nothing: as many, with batches as large, as a `drain` of bare calls has. */
export class ClientDrain implements Load {
  readonly ended: Promise<void>;
  private readonly balance: Gate;
  private readonly consumers: QueueConsumer[];
  private readonly client: RowmqHttpClient;

  constructor(
    url: string,
    queue: string,
    { consumers, batch }: LoadShape,
    private readonly ledger: Ledger,
  ) {
    this.balance = new Gate(() => ledger.backlog === 0);
    this.client = new RowmqHttpClient({ url });
    const handler = {
      message: (_: unknown, message: { id: string }): void => {
        ledger.recordAcked([message]);
        if (ledger.backlog === 0) this.balance.wakeAll();
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
    this.ended = this.balance.pass().then(() => this.stopConsumers());
  }

  done(): number {
    return this.ledger.acked;
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
    this.ledger.assertBalanced();
  }
}
