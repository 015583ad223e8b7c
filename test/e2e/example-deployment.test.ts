import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Queue, RowmqHttpClient } from '@rowmq/client/core';
import { expect, test } from 'vitest';
import { useBroker } from '../support/api.js';
import { freePort } from '../support/processes.js';
import { eventually } from '../support/wait.js';

/*
 * A deployment of the orders example under load. Two shops and two mailers are told to stop, one
 * after the other, and each is started again when it has ended. As a load balancer does, the test
 * sends no new order to a shop that is about to stop, and waits for those that are on their way. An
 * HTTP server that closes its port may reset connections that it has not accepted yet.
 */

const ROUNDS = Number(process.env['ROWMQ_DEPLOYMENT_ROUNDS'] ?? '1');
const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const ORDERS = 'orders';
const CUSTOMERS = 8;
const PAUSE_MS = 40;
/** With this many orders at once, every mailer holds some that no handler has begun. */
const RUSH = 600;
const BATCH = 100;

interface Order {
  customer: string;
  article: string;
  count: number;
}

const shared = useBroker();

/** A process of the example. */
interface Service {
  output(): string;
  /** Sends SIGTERM and waits for the end. */
  stop(): Promise<void>;
}

async function startService(name: 'shop' | 'mailer', readyText: string, env: Record<string, string>): Promise<Service> {
  const child = spawn(process.execPath, [`examples/orders/dist/${name}.js`], {
    cwd: ROOT,
    env: { PATH: process.env['PATH'], ROWMQ_URL: shared.broker.url, NO_COLOR: '1', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
  const ended = once(child, 'close') as Promise<[number | null, NodeJS.Signals | null]>;
  await eventually(
    () => `${name} is ready: ${output}`,
    () => output.includes(readyText),
    60_000,
  );
  return {
    output: () => output,
    stop: async () => {
      child.kill('SIGTERM');
      // Nest closes the application, and then ends the process by the same signal.
      expect(await ended, output).toEqual([null, 'SIGTERM']);
    },
  };
}

/** The fate of every order. */
class Ledger {
  made = 0;
  readonly confirmed = new Set<string>();
  readonly unknown: string[] = [];
  /** Why orders were certainly not placed. The customers placed them again. */
  readonly refused: string[] = [];
  /** The receive counts of every mail, by customer. */
  readonly mailed = new Map<string, number[]>();

  order(): Order {
    return { customer: `c${(this.made += 1)}@example.com`, article: 'teapot', count: 1 };
  }

  readMails(output: string): void {
    for (const [, customer, received] of output.matchAll(/^mailed (\S+) about .* received (\d+) times\)$/gm)) {
      this.mailed.set(customer as string, [...(this.mailed.get(customer as string) ?? []), Number(received)]);
    }
  }

  /**
   * An order whose handler was cut off, or that was held and not released, would be received again.
   */
  judge(): { lost: string[]; unknown: string[]; doubled: string[]; receivedAgain: string[] } {
    const mails = [...this.mailed];
    return {
      lost: [...this.confirmed].filter((customer) => !this.mailed.has(customer)),
      unknown: this.unknown,
      doubled: mails.filter(([, times]) => times.length > 1).map(([customer]) => customer),
      receivedAgain: mails.filter(([, times]) => times.some((count) => count > 1)).map(([customer]) => customer),
    };
  }
}

/** Places an order at a shop. The outcome says why it was certainly not placed, if so. */
async function place(port: number, order: Order): Promise<{ outcome: 'placed' | 'refused' | 'unknown'; why: string }> {
  try {
    const answer = await fetch(`http://127.0.0.1:${port}/orders`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(order),
    });
    const text = await answer.text();
    if (answer.status === 201) return { outcome: 'placed', why: '' };
    const isRefused = answer.status === 503 && text.includes('was not placed');
    return { outcome: isRefused ? 'refused' : 'unknown', why: `${answer.status} ${text}` };
  } catch (error) {
    const why = (error as { cause?: { code?: string } }).cause?.code ?? String(error);
    return { outcome: why === 'ECONNREFUSED' ? 'refused' : 'unknown', why };
  }
}

test(
  'a deployment of the orders example under load loses no order, mails each once, and cuts off no handler',
  { timeout: 120_000 + ROUNDS * 60_000 },
  async () => {
    const ledger = new Ledger();
    const ports = [await freePort(), await freePort()];
    const startShop = async (index: number): Promise<Service> =>
      startService('shop', 'shop takes orders', { SHOP_PORT: String(ports[index]) });
    const startMailer = async (): Promise<Service> => startService('mailer', 'mailer waits for orders', {});
    const outputs: (() => string)[] = [];
    const keep = (service: Service): Service => {
      outputs.push(() => service.output());
      return service;
    };
    const shops = (await Promise.all([startShop(0), startShop(1)])).map(keep);
    const mailers = (await Promise.all([startMailer(), startMailer()])).map(keep);
    const queue = shared.api.queue(ORDERS);
    let isProducing = true;
    const inService = [...ports];
    const onTheirWay = new Map(ports.map((port) => [port, 0]));
    const placeAt = async (port: number, order: Order): ReturnType<typeof place> => {
      onTheirWay.set(port, onTheirWay.get(port)! + 1);
      return place(port, order).finally(() => onTheirWay.set(port, onTheirWay.get(port)! - 1));
    };
    const customers = Array.from({ length: CUSTOMERS }, async (_, worker) => {
      for (let order = ledger.order(), turn = worker; isProducing; turn += 1) {
        const { outcome, why } = await placeAt(inService[turn % inService.length] as number, order);
        if (outcome === 'refused') {
          ledger.refused.push(why);
          continue;
        }
        if (outcome === 'placed') ledger.confirmed.add(order.customer);
        else ledger.unknown.push(why);
        order = ledger.order();
        await sleep(Math.random() * PAUSE_MS);
      }
    });
    const client = new RowmqHttpClient({ url: shared.broker.url });
    const orders = new Queue<Order>(client, ORDERS);
    const rush = async (): Promise<void> => {
      const batches = Array.from({ length: RUSH / BATCH }, () => Array.from({ length: BATCH }, () => ledger.order()));
      await Promise.all(batches.map(async (batch) => orders.enqueueMany(batch)));
      for (const { customer } of batches.flat()) ledger.confirmed.add(customer);
    };

    for (let round = 0; round < ROUNDS; round += 1) {
      for (const [index, port] of ports.entries()) {
        inService.splice(inService.indexOf(port), 1);
        await eventually('the orders at the shop are answered', () => onTheirWay.get(port) === 0);
        await shops[index]!.stop();
        shops[index] = keep(await startShop(index));
        inService.push(port);
      }
      for (const index of mailers.keys()) {
        await rush();
        await mailers[index]!.stop();
        mailers[index] = keep(await startMailer());
      }
    }
    isProducing = false;
    await Promise.all(customers);
    await eventually(
      'all orders are mailed',
      async () => {
        const { stats } = await queue.get();
        return stats.ready + stats.delayed + stats.leased === 0;
      },
      60_000,
    );
    const { text: metrics } = await shared.api.get('/metrics');
    const released = /^rowmq_messages_total\{(?=[^}]*queue="orders")[^}]*event="released"[^}]*\} (\d+)/m.exec(metrics);
    await Promise.all([...shops, ...mailers].map((service) => service.stop()));
    await client.close();

    for (const output of outputs) ledger.readMails(output());
    const verdict = ledger.judge();
    console.log(
      `Deployments: ${ROUNDS}. Orders confirmed: ${ledger.confirmed.size}, mailed: ${ledger.mailed.size}, refused and placed again: ${ledger.refused.length} (${[...new Set(ledger.refused)].join(', ')}), released unhandled: ${released?.[1] ?? 0}. ` +
        `Lost: ${verdict.lost.length}, unknown outcomes: ${verdict.unknown.length}, mailed twice: ${verdict.doubled.length}, received again: ${verdict.receivedAgain.length}.`,
    );
    expect(verdict).toEqual({ lost: [], unknown: [], doubled: [], receivedAgain: [] });
    expect(ledger.confirmed.size).toBeGreaterThan(1000);
    expect(Number(released?.[1])).toBeGreaterThan(0);
    for (const output of outputs) expect(output()).not.toMatch(/ERROR|WARN/);
    expect(await shared.api.queue('orders-dead').browse('ready')).toEqual([]);
  },
);
