import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { Agent, request } from 'undici';
import type { DequeueAnswer } from '@rowmq/contract';
import { type Quantiles, quantiles } from './harness/figures.js';

export const OPERATIONS = ['enqueue', 'dequeue', 'ack'] as const;
export type Operation = (typeof OPERATIONS)[number];

/** How much load there is, the same whatever the answers take. */
export interface Load {
  /** Of each of enqueue and dequeue. */
  requestsPerSecond: number;
  messagesPerRequest: number;
  bodyBytes: number;
}

/**
 * A constant rate of requests to a broker for so long, half a period apart; what is dequeued is acked at once. A request's latency counts from the instant at which it was due, so a stall
 * shows in every request that it delayed.
 */
export async function steadyLoad(
  url: string,
  queue: string,
  load: Load,
  seconds: number,
): Promise<Record<Operation, Quantiles>> {
  const agent = new Agent({ connections: 128, pipelining: 1 });
  const samples: Record<Operation, number[]> = { enqueue: [], dequeue: [], ack: [] };
  const underWay = new Set<Promise<void>>();
  const path = `${url}/v1/queues/${queue}/messages`;

  const call = async <T>(operation: Operation, target: string, body: unknown, due: number): Promise<T> => {
    const response = await request(target, {
      method: 'POST',
      dispatcher: agent,
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    const answer = await response.body.text();
    if (response.statusCode >= 300) throw new Error(`${operation} answered ${response.statusCode}: ${answer}`);
    samples[operation].push(performance.now() - due);
    return JSON.parse(answer) as T;
  };
  const text = 'x'.repeat(load.bodyBytes);
  const messages = Array.from({ length: load.messagesPerRequest }, () => ({ body: text }));
  const enqueue = async (due: number): Promise<void> => void (await call('enqueue', path, { messages }, due));
  const consume = async (due: number): Promise<void> => {
    // One more than comes in: what a stall left is caught up with.
    const asked = { maxMessages: load.messagesPerRequest + 1, leaseSeconds: 30 };
    const { messages: leased } = await call<DequeueAnswer>('dequeue', `${path}/dequeue`, asked, due);
    if (leased.length === 0) return;
    await call('ack', `${path}/ack`, { receipts: leased.map(({ receipt }) => receipt) }, performance.now());
  };

  const started = performance.now();
  const period = 1000 / load.requestsPerSecond / 2;
  let failure: unknown;
  for (let tick = 0; tick * period < seconds * 1000 && failure === undefined; tick += 1) {
    const due = started + tick * period;
    const wait = due - performance.now();
    if (wait > 0) await sleep(wait);
    const work: Promise<void> = (tick % 2 === 0 ? enqueue(due) : consume(due))
      .catch((error: unknown) => void (failure ??= error))
      .finally(() => underWay.delete(work));
    underWay.add(work);
  }
  await Promise.all(underWay);
  await agent.close();
  if (failure !== undefined) throw failure;
  return { enqueue: quantiles(samples.enqueue), dequeue: quantiles(samples.dequeue), ack: quantiles(samples.ack) };
}
