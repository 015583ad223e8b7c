import { messageIdIn, newPackId, PACK_MESSAGES, withPackBytes } from '@rowmq/contract';
import { groupBy } from '../group-by.js';
import { bitOf, type Members, union } from './members.js';
import { type Content, contentBytes, encodePack, PACK_BYTES } from './pack.codec.js';

/** The times and the lease that messages of one enqueue batch share. Spans count from its store. */
export interface NewFate {
  priorityRank: number;
  delayMs: number;
  /**
   * The instant that the producer named, if it was still ahead. Or the place in line of a message
   * with a group, which is past.
   */
  availableAt: number | null;
  lifeMs: number;
  /** The life that the producer gave, or null. */
  producerLifeMs: number | null;
  /** The lease under which the messages are stored, or null if they are stored ready. */
  leaseMs: number | null;
}

/** A message that gets its id and its delivery when it is packed. */
export interface Packable extends Content, NewFate {
  id?: Buffer;
  delivery?: NewDelivery;
}

/** Messages of one new pack that share a fate. */
export interface NewDelivery {
  /** Tells apart the deliveries of a published message, see `Delivery.part`. Otherwise 0. */
  copy: number;
  fate: NewFate;
  members: Members;
}

/** A pack to be stored, with a delivery for each fate among its messages. */
export interface NewPack {
  id: Buffer;
  count: number;
  /** The longest life of its messages. */
  lifeMs: number;
  payload: Buffer;
  deliveries: NewDelivery[];
}

/** Delays up to this share packs: so long a settled message may keep its bytes in any case. */
const NEAR_MS = 43_200_000;

/**
 * Packs messages of one queue: those that share a fate together and in their order, so that few
 * deliveries arise. Gives each message its id and its delivery. Tests that move time pass `makeId`.
 *
 * A pack is stored until the last of its messages is settled, so messages that become available at
 * very different times share no pack. Beyond 12 hours, a pack holds no delay that is more than
 * twice as long as another. Replayed messages and messages with a group have packs of their own,
 * because of their format.
 */
export function packMessages(messages: readonly Packable[], makeId = newPackId): NewPack[] {
  return fill(byFate(messages), (message) => 4 * spanOf(message.delayMs) + formatOf(message)).map(
    ({ content, bytes }) => packOf(withPackBytes(makeId(), bytes), content),
  );
}

/** Divides messages among packs, in their order. Messages of different spans share no pack. */
export function fill<Message extends Content>(
  messages: readonly Message[],
  spanOfMessage: (message: Message) => number,
): { content: Message[]; bytes: number }[] {
  const packs: { content: Message[]; bytes: number }[] = [];
  let open: (typeof packs)[number] | undefined;
  let span = 0;
  for (const message of messages) {
    const more = contentBytes(message);
    const itsSpan = spanOfMessage(message);
    const isFull = open === undefined || open.content.length === PACK_MESSAGES || open.bytes + more > PACK_BYTES;
    if (open === undefined || isFull || itsSpan !== span) packs.push((open = { content: [], bytes: 1 }));
    span = itsSpan;
    open.content.push(message);
    open.bytes += more;
  }
  return packs;
}

function packOf(id: Buffer, messages: readonly Packable[]): NewPack {
  const deliveries = new Map<string, NewDelivery>();
  for (const [index, message] of messages.entries()) {
    message.id = messageIdIn(id, index);
    const key = fateKey(message);
    let delivery = deliveries.get(key);
    if (delivery === undefined) deliveries.set(key, (delivery = { copy: 0, fate: message, members: 0 }));
    delivery.members = union(delivery.members, bitOf(index));
    message.delivery = delivery;
  }
  return {
    id,
    count: messages.length,
    lifeMs: Math.max(...messages.map(({ lifeMs }) => lifeMs)),
    payload: encodePack(messages),
    deliveries: [...deliveries.values()],
  };
}

function formatOf({ replayOf, groupId }: Packable): number {
  return Number(replayOf !== undefined) + 2 * Number(groupId !== undefined);
}

/** 0 for delays up to 12 hours, 1 up to 24 hours, 2 up to 48 hours, and so on. */
export function spanOf(delayMs: number): number {
  return delayMs <= NEAR_MS ? 0 : Math.ceil(Math.log2(delayMs / NEAR_MS));
}

/**
 * The messages, grouped by fate in the order in which each fate comes first, those that become
 * available soon before the others.
 */
function byFate(messages: readonly Packable[]): Packable[] {
  const groups = groupBy(messages, fateKey);
  if (groups.size === 1) return [...messages];
  const spans = [...groups.values()].map((group) => ({ group, span: spanOf((group[0] as Packable).delayMs) }));
  return spans.toSorted((one, other) => one.span - other.span).flatMap(({ group }) => group);
}

/** A text that is equal for equal fates. */
export function fateKey({ priorityRank, delayMs, availableAt, lifeMs, producerLifeMs, leaseMs }: NewFate): string {
  return `${priorityRank}.${delayMs}.${availableAt}.${lifeMs}.${producerLifeMs}.${leaseMs}`;
}
