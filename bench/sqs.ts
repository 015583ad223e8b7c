import { setMaxListeners } from 'node:events';
import {
  DeleteMessageBatchCommand,
  GetQueueUrlCommand,
  ReceiveMessageCommand,
  SendMessageBatchCommand,
  SQSClient,
} from '@aws-sdk/client-sqs';
import { RowmqHttpClient } from '@rowmq/client/core';
import { CallLoad, type ClientCalls } from './harness/call-load.js';
import { BATCH_10 } from './harness/load.js';
import { benchCommand, type BenchOptions } from './harness/options.js';
import { publish } from './harness/publish.js';
import { onEachServer, type Rig } from './harness/rig.js';
import { assertDepth, interleave, measureAndStop, type Scenario } from './harness/scenario.js';
import { rateTable, ratioTable } from './harness/tables.js';

const WAIT_SECONDS = 20;
const OWN = "RowMQ's client";
const SDK = 'AWS SDK for JavaScript';

/** Measures the AWS SDK for JavaScript beside RowMQ's own client, on the same broker. */
export async function main(args: readonly string[], rig?: Rig): Promise<void> {
  const defaults = { runs: 3, seconds: 4, json: 'sqs' };
  const options = benchCommand('bench:sqs', "The AWS SDK for JavaScript beside RowMQ's client.", defaults)
    .parse(args, { from: 'user' })
    .opts<BenchOptions>();
  const scenarios = [lifecycles(OWN, ownCalls), lifecycles(SDK, sdkCalls)];
  const results = await onEachServer({ ...options, rig }, (on) => interleave(on, scenarios, options.runs, options));
  await publish({
    title: "The AWS SDK beside RowMQ's client",
    script: 'bench:sqs',
    args,
    options,
    results,
    markdown: `Each client sends, receives and deletes messages of 200 bytes in batches of 10, with ${BATCH_10.producers} producers
and ${BATCH_10.consumers} consumers in closed loops. Both speak to the same broker. The load generator's CPU
is that of the client. Figures are medians (lowest – highest) of ${options.runs} stretches of ${options.seconds} s. The two run
in rounds.

${rateTable(results)}

${ratioTable(results, () => [{ label: `${SDK} to ${OWN}`, of: SDK, to: OWN }])}`,
  });
}

function lifecycles(name: string, open: (url: string, queue: string) => Promise<ClientCalls>): Scenario {
  return {
    name,
    run: async (rig, timing) => {
      const broker = await rig.broker();
      const [queue] = (await rig.newQueues(1)) as [string];
      const load = new CallLoad(await open(broker.url, queue), BATCH_10);
      const stretch = await measureAndStop(rig, broker, load, timing);
      await assertDepth(rig, queue, 0);
      return { [name]: stretch };
    },
  };
}

async function ownCalls(url: string, queue: string): Promise<ClientCalls> {
  const client = new RowmqHttpClient({ url });
  const ending = new AbortController();
  const { signal } = ending;
  setMaxListeners(BATCH_10.consumers, signal);
  return {
    send: async (bodies) => {
      const { messages } = await client.enqueue(queue, { messages: bodies.map((body) => ({ body })) });
      return messages.map(({ id }) => id);
    },
    receive: async (maxMessages) => {
      const { messages } = await client.dequeue(queue, { maxMessages, waitSeconds: WAIT_SECONDS }, { signal });
      return {
        ids: messages.map(({ id }) => id),
        remove: async () => {
          const { failed } = await client.ack(queue, { receipts: messages.map(({ receipt }) => receipt) });
          if (failed.length > 0) throw new Error(`acks failed: ${JSON.stringify(failed.slice(0, 3))}`);
        },
      };
    },
    close: async () => {
      ending.abort();
      await client.close();
    },
  };
}

async function sdkCalls(url: string, queue: string): Promise<ClientCalls> {
  const sqs = new SQSClient({
    endpoint: url,
    region: 'eu-central-1',
    credentials: { accessKeyId: 'any', secretAccessKey: 'any' },
  });
  const ending = new AbortController();
  setMaxListeners(BATCH_10.consumers, ending.signal);
  const { QueueUrl } = await sqs.send(new GetQueueUrlCommand({ QueueName: queue }));
  return {
    send: async (bodies) => {
      const Entries = bodies.map((MessageBody, index) => ({ Id: String(index), MessageBody }));
      const { Successful = [], Failed = [] } = await sqs.send(new SendMessageBatchCommand({ QueueUrl, Entries }));
      if (Failed.length > 0) throw new Error(`sends failed: ${JSON.stringify(Failed.slice(0, 3))}`);
      return Successful.map(({ MessageId }) => MessageId as string);
    },
    receive: async (MaxNumberOfMessages) => {
      const request = new ReceiveMessageCommand({ QueueUrl, MaxNumberOfMessages, WaitTimeSeconds: WAIT_SECONDS });
      const { Messages = [] } = await sqs.send(request, { abortSignal: ending.signal });
      return {
        ids: Messages.map(({ MessageId }) => MessageId as string),
        remove: async () => {
          const Entries = Messages.map(({ ReceiptHandle }, index) => ({ Id: String(index), ReceiptHandle }));
          const { Failed = [] } = await sqs.send(new DeleteMessageBatchCommand({ QueueUrl, Entries }));
          if (Failed.length > 0) throw new Error(`deletes failed: ${JSON.stringify(Failed.slice(0, 3))}`);
        },
      };
    },
    close: () => {
      ending.abort();
      sqs.destroy();
    },
  };
}
