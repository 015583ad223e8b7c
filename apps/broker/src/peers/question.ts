import { queueName } from '@rowmq/contract';
import type { Peer } from '@rowmq/store';
import { z } from 'zod';

/** The path of a question on a peer's own listener. */
export const CONSUMERS_PATH = '/consumers';

/** Who consumes this queue through you? */
export const consumersQuestion = z.object({ queue: queueName });

/** The consumers that a broker knows: `KnownConsumers`. */
const consumersReply = z.object({
  consumers: z.array(
    z.object({
      name: z.string().nullable(),
      address: z.string(),
      waiting: z.int(),
      seenAt: z.number(),
      leases: z.array(z.string()),
    }),
  ),
});

export type PeerConsumer = z.output<typeof consumersReply>['consumers'][number];

const DEADLINE_MS = 2000;

/** Asks a broker who consumes a queue through it. Rejects if it does not answer in time. */
export async function askConsumers({ url, token }: Peer, queue: string): Promise<PeerConsumer[]> {
  const answer = await fetch(`${url}${CONSUMERS_PATH}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ queue }),
    signal: AbortSignal.timeout(DEADLINE_MS),
  });
  return consumersReply.parse(await answer.json()).consumers;
}
