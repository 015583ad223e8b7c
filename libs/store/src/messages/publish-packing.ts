import { messageIdIn, newPackId, withPackBytes } from '@rowmq/contract';
import { groupBy } from '../group-by.js';
import { groupKeyOf } from '../groups/group.js';
import type { Queue } from '../queues/queue.js';
import type { Topic } from '../topics/topic.js';
import type { Admitted } from './enqueue.js';
import { bitOf, union } from './members.js';
import { type Content, encodePack } from './pack.codec.js';
import { fateKey, fill, type NewDelivery } from './packing.js';

/** One subscription's share in a message: the message as its queue will owe it. */
export interface Copy extends Admitted {
  queue: Queue;
  /** The place of the subscription in its topic. It tells apart the copies of a message. */
  number: number;
}

/** A message of a topic. */
export interface TopicMessage extends Content {
  topic: Topic;
  /** One for each subscription that wants it. Without any, the message is not stored. */
  copies: Copy[];
  /** The number of copies. */
  subscriptions: number;
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

/** Whether an ordered queue wants the message. */
export function isInOrder({ copies }: TopicMessage): boolean {
  return copies.some((copy) => groupKeyIn(copy) !== undefined);
}

/** The key of a copy's group in an ordered queue. Undefined: the queue has no ordering. */
export function groupKeyIn({ queue, groupId }: Copy): number | undefined {
  return queue.ordering === null || groupId === undefined ? undefined : groupKeyOf(groupId);
}

/**
 * Packs messages of topics: those of one topic that the same subscriptions want, on the same terms,
 * together and in their order. A pack then has one delivery for each of these subscriptions, and a
 * further one where consumers wait for some of its messages. Gives each copy its message's id and
 * its delivery.
 */
export function packWanted(messages: readonly TopicMessage[], makeId = newPackId): TopicPack[] {
  const wanted = messages.filter(({ copies }) => copies.length > 0);
  return [...groupBy(wanted, termsOf).values()].flatMap((group) =>
    // They become available at the same time.
    fill(group, () => 0).map(({ content, bytes }) => packOf(withPackBytes(makeId(), bytes), content)),
  );
}

function packOf(id: Buffer, messages: readonly TopicMessage[]): TopicPack {
  const [{ topic, copies: first }] = messages as [TopicMessage];
  giveIds(id, messages);
  return {
    id,
    topic,
    count: messages.length,
    lifeMs: Math.max(...first.map(({ lifeMs }) => lifeMs)),
    payload: encodePack(messages),
    deliveries: first.flatMap(({ queue, number }, place) => {
      const byLease = new Map<number | null, TopicDelivery>();
      for (const [index, { copies }] of messages.entries()) {
        const fate = copies[place] as Copy;
        let delivery = byLease.get(fate.leaseMs);
        if (delivery === undefined) byLease.set(fate.leaseMs, (delivery = { queue, copy: number, fate, members: 0 }));
        delivery.members = union(delivery.members, bitOf(index));
        fate.delivery = delivery;
      }
      return [...byLease.values()];
    }),
  };
}

/**
 * Packs messages that ordered queues want: those of a group together and in their order, whichever
 * subscriptions want them. Otherwise a message that only some want would come after later ones.
 *
 * @param makeId must return ascending ids
 */
export function packWantedInOrder(messages: readonly TopicMessage[], makeId: () => Buffer): TopicPack[] {
  const sorted = [...groupBy(messages, ({ topic }) => topic).values()].flatMap((ofTopic) =>
    [...groupBy(ofTopic, ({ groupId }) => groupId).values()].flat(),
  );
  return fill(sorted, ({ topic }) => topic.id).map(({ content, bytes }) =>
    packOfGroups(withPackBytes(makeId(), bytes), content),
  );
}

/**
 * A pack with a delivery for each subscription and each fate. In an ordered queue, the messages of
 * a delivery follow each other in their group.
 */
function packOfGroups(id: Buffer, messages: readonly TopicMessage[]): TopicPack {
  giveIds(id, messages);
  const deliveries: TopicDelivery[] = [];
  /** By subscription and group, or fate in a queue without ordering. */
  const last = new Map<string, TopicDelivery>();
  for (const [index, { copies }] of messages.entries()) {
    for (const copy of copies) {
      const groupKey = groupKeyIn(copy);
      const key = `${copy.number} ${groupKey ?? fateKey(copy)}`;
      let delivery = last.get(key);
      if (delivery === undefined || fateKey(delivery.fate) !== fateKey(copy)) {
        delivery = {
          queue: copy.queue,
          copy: copy.number,
          fate: copy,
          members: 0,
          ...(groupKey !== undefined && { groupKey }),
        };
        deliveries.push(delivery);
        last.set(key, delivery);
      }
      delivery.members = union(delivery.members, bitOf(index));
      copy.delivery = delivery;
    }
  }
  return {
    id,
    topic: (messages[0] as TopicMessage).topic,
    count: messages.length,
    lifeMs: Math.max(...messages.flatMap(({ copies }) => copies.map(({ lifeMs }) => lifeMs))),
    payload: encodePack(messages),
    deliveries,
  };
}

/** Gives the messages of a pack their ids. */
export function giveIds(packId: Buffer, messages: readonly TopicMessage[]): void {
  for (const [index, message] of messages.entries()) {
    message.id = messageIdIn(packId, index);
    for (const copy of message.copies) copy.id = message.id;
  }
}

/**
 * The topic, the subscriptions that want a message, and its terms, which are the same for each. A
 * pack has messages with group ids, or without.
 */
function termsOf({ topic, copies, groupId }: TopicMessage): string {
  const numbers = copies.map(({ number, delayMs }) => `${number}.${delayMs}`).join();
  const { priorityRank, availableAt, producerLifeMs } = copies[0] as Copy;
  return `${topic.id} ${groupId === undefined} ${priorityRank} ${availableAt} ${producerLifeMs} ${numbers}`;
}
