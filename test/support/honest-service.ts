import { RowmqHttpClient } from '@rowmq/client/core';
import { LoadGenerator, Tally } from '@rowmq/load';
import { eventually } from './wait.js';

const PER_SECOND = 40;
const CONSUMERS = 2;
/** No lease runs out, so a message that comes twice is a fault of the broker. */
const LEASE_SECONDS = 600;

/**
 * A producer and two consumers of one queue, with a client who repeats calls as the protocol says.
 * A call that stays without success fails the test.
 */
export class HonestService {
  private readonly client: RowmqHttpClient;
  private readonly tally = new Tally<string>();
  private readonly producer: LoadGenerator;
  private readonly consumers: LoadGenerator;

  constructor(
    url: string,
    private readonly queue: string,
  ) {
    this.client = new RowmqHttpClient({ url });
    this.producer = new LoadGenerator({ perSecond: PER_SECOND, maxInFlight: PER_SECOND }, ({ number }) =>
      this.send(String(number)),
    );
    this.consumers = new LoadGenerator({ workers: CONSUMERS }, () => this.receive());
  }

  /** Resolves when so many more messages have made the whole way. Fails if the service failed. */
  async goesOn(messages = PER_SECOND): Promise<void> {
    const wanted = this.tally.returned + messages;
    const failed = Promise.race([this.producer.ended, this.consumers.ended]);
    await Promise.race([failed, eventually('the service goes on', () => this.tally.returned >= wanted, 60_000)]);
  }

  /** Ends, and fails unless every message came exactly once. Returns their number. */
  async end(): Promise<number> {
    await this.producer.stop();
    await Promise.race([this.consumers.ended, this.tally.allReturned()]);
    await this.consumers.stop();
    await this.client.close();
    this.tally.assertBalanced();
    return this.tally.sent;
  }

  private async send(body: string): Promise<void> {
    await this.client.enqueue(this.queue, { messages: [{ body }] });
    this.tally.send([body]);
  }

  private async receive(): Promise<void> {
    const request = { maxMessages: 10, waitSeconds: 1, leaseSeconds: LEASE_SECONDS };
    const { messages } = await this.client.dequeue(this.queue, request);
    this.tally.return(messages.map(({ body }) => body));
    if (messages.length === 0) return;
    const { failed } = await this.client.ack(this.queue, { receipts: messages.map(({ receipt }) => receipt) });
    // The broker had carried out an ack whose answer was lost.
    const wrong = failed.filter(({ code }) => code !== 'delivery-not-found');
    if (wrong.length > 0) throw new Error(`Acks failed: ${JSON.stringify(wrong)}`);
  }
}
