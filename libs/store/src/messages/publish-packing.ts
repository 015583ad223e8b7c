import { messageIdIn, newPackId, withPackBytes } from '@rowmq/contract';
import { groupBy } from '../group-by.js';
import { groupKeyOf } from '../groups/group.js';
import type { Queue } from '../queues/queue.js';
import type { Topic } from '../topics/topic.js';
import type { Admitted } from './new-message.js';
import { bitOf, firstMembers, union } from './members.js';
import { type Content, encodePack } from './pack.codec.js';
import { fateKey, fill, type NewDelivery } from './packing.js';
import type { Share, Terms } from './publish-terms.js';

/** A message of a topic. */
export interface TopicMessage extends Content {
  terms: Terms;
  /** The number of shares. */
  subscriptions: number;
  priority: number;
  /** By share: where a consumer waits for the message, and gets it at once. */
  reserved?: Map<Share, Admitted>;
  /** It has one after it was packed. */
  id?: Buffer;
}

/** A pack of a topic to be stored, with its deliveries in several queues. */
export interface TopicPack {
  id: Buffer;
  topic: Topic;
  count: number;
  /** The longest life of its messages in any queue. */
  lifeMs: number;
  payload: Buffer;
  deliveries: TopicDelivery[];
}

export interface TopicDelivery extends NewDelivery {
  queue: Queue;
  /** The group of its messages, in an ordered queue. */
  groupKey?: number;
}

/** The message as the queue of a share owes it, for a consumer who may get it at once. */
export function reservable(message: TopicMessage, share: Share): Admitted {
  const known = message.reserved?.get(share);
  if (known !== undefined) return known;
  const { queue: _, number: __, ...fate } = share;
  const { body, headers, groupId, priority } = message;
  const copy = { body, headers, ...(groupId !== undefined && { groupId }), priority, ...fate };
  (message.reserved ??= new Map()).set(share, copy);
  return copy;
}

/** Whether an ordered queue wants the message. */
export function isInOrder({ terms, groupId }: TopicMessage): boolean {
  return groupId !== undefined && terms.shares.some(({ queue }) => queue.ordering !== null);
}

/** The key of a message's group in each ordered queue that wants it. */
export function groupKeysIn(message: TopicMessage): { queueId: number; groupKey: number }[] {
  if (!isInOrder(message)) return [];
  const groupKey = groupKeyOf(message.groupId as string);
  return message.terms.shares.flatMap(({ queue: { id, ordering } }) =>
    ordering === null ? [] : { queueId: id, groupKey },
  );
}

/**
 * Packs messages of topics: those of the same terms together and in their order. A pack has one
 * delivery for each subscription, and a further one where consumers wait for some of its messages.
 * Gives each message its id.
 */
export function packWanted(messages: readonly TopicMessage[], makeId = newPackId): TopicPack[] {
  const wanted = messages.filter(({ subscriptions }) => subscriptions > 0);
  return [...groupBy(wanted, ({ terms }) => terms).values()].flatMap((group) =>
    // They become available at the same time.
    fill(group, () => 0).map(({ content, bytes }) => packOf(withPackBytes(makeId(), bytes), content)),
  );
}

function packOf(id: Buffer, messages: readonly TopicMessage[]): TopicPack {
  const [{ terms }] = messages as [TopicMessage];
  return {
    ...withContent(id, messages),
    lifeMs: longestLife(terms),
    deliveries: terms.shares.flatMap((share) => deliveriesOf(share, messages)),
  };
}

/** One delivery of all messages, unless consumers of the subscription wait for some of them. */
function deliveriesOf(share: Share, messages: readonly TopicMessage[]): TopicDelivery[] {
  const { queue, number: copy } = share;
  if (messages.every(({ reserved }) => !reserved?.has(share)))
    return [{ queue, copy, fate: share, members: firstMembers(messages.length) }];
  const byLease = new Map<number | null, TopicDelivery>();
  for (const [index, { reserved }] of messages.entries()) {
    const own = reserved?.get(share);
    const fate = own ?? share;
    let delivery = byLease.get(fate.leaseMs);
    if (delivery === undefined) byLease.set(fate.leaseMs, (delivery = { queue, copy, fate, members: 0 }));
    delivery.members = union(delivery.members, bitOf(index));
    if (own !== undefined) own.delivery = delivery;
  }
  return [...byLease.values()];
}

/**
 * Packs messages that ordered queues want: those of a group together and in their order, whichever
 * subscriptions want them. Otherwise a message that only some want would come after later ones.
 *
 * @param makeId must return ascending ids
 */
export function packWantedInOrder(messages: readonly TopicMessage[], makeId: () => Buffer): TopicPack[] {
  const sorted = [...groupBy(messages, ({ terms }) => terms.topic).values()].flatMap((ofTopic) =>
    [...groupBy(ofTopic, ({ groupId }) => groupId).values()].flat(),
  );
  return fill(sorted, ({ terms }) => terms.topic.id).map(({ content, bytes }) =>
    packOfGroups(withPackBytes(makeId(), bytes), content),
  );
}

/**
 * A pack with a delivery for each subscription and each fate. In an ordered queue, the messages of
 * a delivery follow each other in their group.
 */
function packOfGroups(id: Buffer, messages: readonly TopicMessage[]): TopicPack {
  const deliveries: TopicDelivery[] = [];
  /** By subscription and group, or fate in a queue without ordering. */
  const last = new Map<string, TopicDelivery>();
  for (const [index, message] of messages.entries()) {
    const groupOfMessage = groupKeyOf(message.groupId as string);
    for (const share of message.terms.shares) {
      const { queue, number: copy } = share;
      const own = message.reserved?.get(share);
      const fate = own ?? share;
      const groupKey = queue.ordering === null ? undefined : groupOfMessage;
      const key = `${copy} ${groupKey ?? fateKey(fate)}`;
      let delivery = last.get(key);
      if (delivery === undefined || fateKey(delivery.fate) !== fateKey(fate)) {
        delivery = { queue, copy, fate, members: 0, ...(groupKey !== undefined && { groupKey }) };
        deliveries.push(delivery);
        last.set(key, delivery);
      }
      delivery.members = union(delivery.members, bitOf(index));
      if (own !== undefined) own.delivery = delivery;
    }
  }
  return {
    ...withContent(id, messages),
    lifeMs: Math.max(...messages.map(({ terms }) => longestLife(terms))),
    deliveries,
  };
}

/** The bytes of a pack. Gives its messages their ids. */
function withContent(
  id: Buffer,
  messages: readonly TopicMessage[],
): Pick<TopicPack, 'id' | 'topic' | 'count' | 'payload'> {
  for (const [index, message] of messages.entries()) {
    message.id = messageIdIn(id, index);
    for (const own of message.reserved?.values() ?? []) own.id = message.id;
  }
  const [{ terms }] = messages as [TopicMessage];
  return { id, topic: terms.topic, count: messages.length, payload: encodePack(messages) };
}

function longestLife({ shares }: Terms): number {
  return Math.max(...shares.map(({ lifeMs }) => lifeMs));
}
