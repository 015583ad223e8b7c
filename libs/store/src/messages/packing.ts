import { messageIdIn, newPackId, PACK_MESSAGES } from '@rowmq/contract';
import { bitOf, type Members, union } from './members.js';
import { type Content, contentBytes, encodePack, PACK_BYTES } from './pack.codec.js';

/** The times and the lease that messages of one enqueue batch share. Spans count from its store. */
export interface NewFate {
  priorityRank: number;
  delayMs: number;
  lifeMs: number;
  /** The life that the producer gave, or null. */
  producerLifeMs: number | null;
  /** The lease under which the messages are stored, or null if they are stored ready. */
  leaseMs: number | null;
}

/** A message that gets its id when it is packed. */
export interface Packable extends Content, NewFate {
  id?: Buffer;
}

/** A pack to be stored, with a delivery for each fate among its messages. */
export interface NewPack {
  id: Buffer;
  count: number;
  /** The longest life of its messages. */
  lifeMs: number;
  payload: Buffer;
  deliveries: { fate: NewFate; members: Members }[];
}

/**
 * Packs messages of one queue: those that share a fate together and in their order, so that few
 * deliveries arise. Gives each message its id. Tests that move time pass `makeId`.
 */
export function packMessages(messages: readonly Packable[], makeId = newPackId): NewPack[] {
  const packs: NewPack[] = [];
  let open: Packable[] = [];
  let bytes = 1;
  const close = (): void => {
    if (open.length > 0) packs.push(packOf(makeId(), open));
    open = [];
    bytes = 1;
  };
  for (const message of byFate(messages)) {
    const more = contentBytes(message);
    if (open.length === PACK_MESSAGES || bytes + more > PACK_BYTES) close();
    open.push(message);
    bytes += more;
  }
  close();
  return packs;
}

function packOf(id: Buffer, messages: readonly Packable[]): NewPack {
  const deliveries = new Map<string, { fate: NewFate; members: Members }>();
  for (const [index, message] of messages.entries()) {
    message.id = messageIdIn(id, index);
    const key = fateKey(message);
    const known = deliveries.get(key);
    if (known === undefined) deliveries.set(key, { fate: message, members: bitOf(index) });
    else known.members = union(known.members, bitOf(index));
  }
  return {
    id,
    count: messages.length,
    lifeMs: Math.max(...messages.map(({ lifeMs }) => lifeMs)),
    payload: encodePack(messages),
    deliveries: [...deliveries.values()],
  };
}

/** The messages, grouped by fate in the order in which each fate comes first. */
function byFate(messages: readonly Packable[]): Packable[] {
  const groups = new Map<string, Packable[]>();
  for (const message of messages) {
    const key = fateKey(message);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [message]);
    else group.push(message);
  }
  return [...groups.values()].flat();
}

function fateKey({ priorityRank, delayMs, lifeMs, producerLifeMs, leaseMs }: NewFate): string {
  return `${priorityRank}.${delayMs}.${lifeMs}.${producerLifeMs}.${leaseMs}`;
}
