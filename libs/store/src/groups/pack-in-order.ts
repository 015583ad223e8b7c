import { messageIdIn, PACK_MESSAGES, withPackBytes } from '@rowmq/contract';
import { groupBy } from '../group-by.js';
import { groupKeyOf } from './group.js';
import { bitOf, type Members, union } from '../messages/members.js';
import { type Content, contentBytes, encodePack, PACK_BYTES } from '../messages/pack.codec.js';
import type { Packable } from '../messages/packing.js';

/** A message of an ordered queue. It gets its id when it is packed. Times count from its store. */
export type OrderedMessage = Packable;

/** Messages that follow each other in their group. */
export interface OrderedDelivery<Message extends OrderedMessage = OrderedMessage> extends Pick<
  OrderedMessage,
  'delayMs' | 'lifeMs' | 'producerLifeMs'
> {
  groupKey: number;
  members: Members;
  messages: Message[];
  /** The part that is stored under a lease: the first messages. */
  leased?: { members: Members; leaseMs: number };
}

/** The key of the group of a message. A request without a group was refused. */
export function groupKeyOfMessage({ groupId }: Content): number {
  if (groupId === undefined) throw new TypeError('a message without a group');
  return groupKeyOf(groupId);
}

/** A pack of an ordered queue, with deliveries whose members follow each other in their group. */
export interface OrderedPack<Message extends OrderedMessage = OrderedMessage> {
  id: Buffer;
  count: number;
  lifeMs: number;
  payload: Buffer;
  deliveries: OrderedDelivery<Message>[];
}

/**
 * Packs messages of one queue, those of a group together and in their order. Gives each its id.
 *
 * @param makeId must return ascending ids
 */
export function packInOrder<Message extends OrderedMessage>(
  messages: readonly Message[],
  makeId: () => Buffer,
): OrderedPack<Message>[] {
  const packs: OrderedPack<Message>[] = [];
  let open: Message[] = [];
  let bytes = 1;
  for (const message of [...groupBy(messages, ({ groupId }) => groupId).values()].flat()) {
    const more = contentBytes(message);
    const isOther = open.length > 0 && (open[0]?.replayOf === undefined) !== (message.replayOf === undefined);
    if (isOther || open.length === PACK_MESSAGES || (open.length > 0 && bytes + more > PACK_BYTES)) {
      packs.push(packOf(withPackBytes(makeId(), bytes), open));
      open = [];
      bytes = 1;
    }
    open.push(message);
    bytes += more;
  }
  if (open.length > 0) packs.push(packOf(withPackBytes(makeId(), bytes), open));
  return packs;
}

function packOf<Message extends OrderedMessage>(id: Buffer, messages: readonly Message[]): OrderedPack<Message> {
  const deliveries: OrderedDelivery<Message>[] = [];
  for (const [index, message] of messages.entries()) {
    message.id = messageIdIn(id, index);
    const { delayMs, lifeMs, producerLifeMs } = message;
    const groupKey = groupKeyOfMessage(message);
    const last = deliveries.at(-1);
    const isSame =
      last?.groupKey === groupKey &&
      last.delayMs === delayMs &&
      last.lifeMs === lifeMs &&
      last.producerLifeMs === producerLifeMs;
    if (!isSame)
      deliveries.push({ groupKey, delayMs, lifeMs, producerLifeMs, members: bitOf(index), messages: [message] });
    else {
      last.members = union(last.members, bitOf(index));
      last.messages.push(message);
    }
  }
  return {
    id,
    count: messages.length,
    lifeMs: Math.max(...messages.map(({ lifeMs }) => lifeMs)),
    payload: encodePack(messages),
    deliveries,
  };
}
