import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { text } from 'node:stream/consumers';
import { newPackId, formatMessageId, type AckRequest, type DequeueAnswer, type EnqueueRequest } from '@rowmq/contract';
import { freePort } from './processes.js';

export type Verb = 'enqueue' | 'dequeue' | 'ack' | 'other';

/** A call on its way to the broker. */
export interface Passing {
  verb: Verb;
  /** The number of the call among those of its verb, from 1. */
  number: number;
  body: string;
  /** Forwards it to the broker and returns the broker's answer. */
  forward: () => Promise<{ status: number; text: string }>;
}

/** The liar's answer in place of the broker's. */
export type Lie = (passing: Passing) => Promise<{ status: number; text: string }>;

/** A proxy between the simulator and an honest broker that breaks one guarantee. */
export async function startLyingProxy(target: string, lie: Lie): Promise<{ url: string; stop(): Promise<void> }> {
  const numbers: Record<Verb, number> = { enqueue: 0, dequeue: 0, ack: 0, other: 0 };
  const pass = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const body = await text(request);
    const verb = verbOf(request);
    numbers[verb] += 1;
    const forward = async () => {
      const { method = 'GET', url = '/' } = request;
      const headers: Record<string, string> = body === '' ? {} : { 'content-type': 'application/json' };
      const answer = await fetch(`${target}${url}`, { method, headers, body: body === '' ? null : body });
      return { status: answer.status, text: await answer.text() };
    };
    const answer = await lie({ verb, number: numbers[verb], body, forward });
    response.writeHead(answer.status, answer.text === '' ? {} : { 'content-type': 'application/json' });
    response.end(answer.text);
  };
  const server = createServer((request, response) => {
    // The simulator sees any failure here as a broken connection.
    pass(request, response).catch(() => response.destroy());
  });
  const port = await freePort();
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${port}`,
    stop: async () => {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}

/** Confirms every fifth ack but does not forward it. */
export const swallowsAcks: Lie = async ({ verb, number, body, forward }) => {
  if (verb !== 'ack' || number % 5 !== 0) return forward();
  const { receipts }: AckRequest = JSON.parse(body);
  return { status: 200, text: JSON.stringify({ acked: receipts, failed: [] }) };
};

/** Says "acked" to every receipt, the refused ones too. */
export const confirmsStaleAcks: Lie = async ({ verb, body, forward }) => {
  const answer = await forward();
  if (verb !== 'ack') return answer;
  const { receipts }: AckRequest = JSON.parse(body);
  return { status: 200, text: JSON.stringify({ acked: receipts, failed: [] }) };
};

/** Sometimes gives the messages of one consumer to the next one too. */
export function deliversTwice(): Lie {
  let last: string | undefined;
  return async ({ verb, number, forward }) => {
    if (verb === 'dequeue' && number % 5 === 0 && last !== undefined) return { status: 200, text: last };
    const answer = await forward();
    if (verb === 'dequeue' && answer.text.includes('"receipt"')) last = answer.text;
    return answer;
  };
}

/** Confirms every fifth enqueue but does not forward it. */
export const losesEnqueues: Lie = async ({ verb, number, body, forward }) => {
  if (verb !== 'enqueue' || number % 5 !== 0) return forward();
  const { messages }: EnqueueRequest = JSON.parse(body);
  return {
    status: 201,
    text: JSON.stringify({ messages: messages.map(() => ({ id: formatMessageId(newPackId()) })) }),
  };
};

/** Loses the last byte of every fifth delivered batch. */
export const altersBodies: Lie = async ({ verb, number, forward }) => {
  const answer = await forward();
  if (verb !== 'dequeue' || number % 5 !== 0) return answer;
  const { messages }: DequeueAnswer = JSON.parse(answer.text);
  const altered = messages.map((message) => ({ ...message, body: message.body.slice(0, -4) }));
  return { ...answer, text: JSON.stringify({ messages: altered }) };
};

/** Hands messages out a minute late by its own clock, long after short-lived ones have expired. */
export const deliversExpired: Lie = async ({ verb, forward }) => {
  const answer = await forward();
  if (verb !== 'dequeue') return answer;
  const { messages }: DequeueAnswer = JSON.parse(answer.text);
  const shifted = messages.map((message) => ({ ...message, leaseExpiresAt: later(message.leaseExpiresAt) }));
  return { ...answer, text: JSON.stringify({ messages: shifted }) };
};

function later(time: string): string {
  return new Date(Date.parse(time) + 60_000).toISOString();
}

function verbOf({ method, url = '' }: IncomingMessage): Verb {
  if (method !== 'POST') return 'other';
  if (url.endsWith('/messages')) return 'enqueue';
  if (url.endsWith('/dequeue')) return 'dequeue';
  return url.endsWith('/ack') ? 'ack' : 'other';
}
