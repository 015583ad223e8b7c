import { Controller, Get, Param } from '@nestjs/common';
import { ApiBearerAuth, ApiTags } from '@nestjs/swagger';
import { consumersAnswer, type ConsumersAnswer, encodeReceipt, leaseOf, LIMITS, queueName } from '@rowmq/contract';
import { BrowseRepository, PeerRepository, QueueRepository } from '@rowmq/store';
import { ApiCall } from '../http/api-call.js';
import { formatTime } from '../messages/message.codec.js';
import { askConsumers, type PeerConsumer } from './question.js';

/** A consumer that neither waits nor holds a message is shown for this long. */
const SHOWN_MS = 10 * 60_000;

/** Shows who consumes a queue, through whatever broker. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('v1/admin/queues/:queue/consumers')
export class ConsumersController {
  constructor(
    private readonly queues: QueueRepository,
    private readonly browse: BrowseRepository,
    private readonly peers: PeerRepository,
  ) {}

  @Get()
  @ApiCall({
    summary: 'Who consumes a queue, through any broker: name, address, waiting dequeues and leases held',
    needs: { scope: 'admin', reach: ['queue'] },
    status: 200,
    answer: consumersAnswer,
    problems: ['invalid-request', 'queue-not-found'],
  })
  async getConsumers(@Param('queue', { schema: queueName }) name: string): Promise<ConsumersAnswer> {
    const { id } = await this.queues.getFresh(name);
    // This broker is one of them.
    const brokers = await this.peers.live();
    const replies = await Promise.allSettled(brokers.map(async (broker) => askConsumers(broker, name)));
    const leased = await this.browse.leases(id, LIMITS.consumerLeases);
    const leases = leased.map(({ messageId, token }) =>
      leaseOf(encodeReceipt({ messageId, leaseToken: token, part: 0, members: 0 })),
    );
    const known = replies.flatMap((reply) => (reply.status === 'fulfilled' ? reply.value : []));
    const holders = holdersOf(known, new Set(leases));
    return {
      queue: name,
      consumers: merge(known, holders),
      otherLeases: leases.length - holders.size,
      complete: leases.length < LIMITS.consumerLeases && replies.every(({ status }) => status === 'fulfilled'),
    };
  }
}

/** The consumer of each lease that is held. An extend may have gone through another broker. */
function holdersOf(known: readonly PeerConsumer[], held: ReadonlySet<string>): Map<string, PeerConsumer> {
  const holders = new Map<string, PeerConsumer>();
  for (const consumer of known.toSorted((one, other) => one.seenAt - other.seenAt))
    for (const lease of consumer.leases) if (held.has(lease)) holders.set(lease, consumer);
  return holders;
}

/** One entry for each consumer, whatever brokers it uses. */
function merge(
  known: readonly PeerConsumer[],
  holders: ReadonlyMap<string, PeerConsumer>,
): ConsumersAnswer['consumers'] {
  const merged = new Map<
    string,
    { name: string | null; address: string; waiting: number; leases: number; seenAt: number }
  >();
  for (const { name, address, waiting, seenAt } of known) {
    const key = keyOf({ name, address });
    const before = merged.get(key);
    merged.set(key, {
      name,
      address,
      waiting: waiting + (before?.waiting ?? 0),
      leases: 0,
      seenAt: Math.max(seenAt, before?.seenAt ?? 0),
    });
  }
  for (const consumer of holders.values()) (merged.get(keyOf(consumer)) as { leases: number }).leases += 1;
  return [...merged.values()]
    .filter(({ waiting, leases, seenAt }) => waiting + leases > 0 || seenAt > Date.now() - SHOWN_MS)
    .toSorted((one, other) => keyOf(one).localeCompare(keyOf(other)))
    .map(({ seenAt, ...consumer }) => ({ ...consumer, lastSeenAt: formatTime(seenAt) }));
}

function keyOf({ name, address }: Pick<PeerConsumer, 'name' | 'address'>): string {
  return `${name ?? ''}\0${address}`;
}
