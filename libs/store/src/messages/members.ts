import { PACK_MESSAGES } from '@rowmq/contract';

/**
 * A set of messages of one pack, as a bit mask: bit `i` stands for the message with index `i`.
 * JavaScript's bit operators are signed, so every result passes through `>>> 0`.
 */
export type Members = number;

export function bitOf(index: number): Members {
  return (1 << index) >>> 0;
}

/** The set of the first `count` messages. */
export function firstMembers(count: number): Members {
  return count >= PACK_MESSAGES ? 0xff_ff_ff_ff : bitOf(count) - 1;
}

export function has(members: Members, index: number): boolean {
  return (members & bitOf(index)) !== 0;
}

export function common(members: Members, others: Members): Members {
  return (members & others) >>> 0;
}

export function union(members: Members, others: Members): Members {
  return (members | others) >>> 0;
}

export function without(members: Members, others: Members): Members {
  return (members & ~others) >>> 0;
}

/** Source: "Counting bits set, in parallel", Sean Eron Anderson, Bit Twiddling Hacks. */
export function countMembers(members: Members): number {
  let count = members - ((members >>> 1) & 0x55_55_55_55);
  count = (count & 0x33_33_33_33) + ((count >>> 2) & 0x33_33_33_33);
  return Math.imul((count + (count >>> 4)) & 0x0f_0f_0f_0f, 0x01_01_01_01) >>> 24;
}

/** The number of messages that deliveries owe. */
export function countAll(deliveries: readonly { members: Members }[]): number {
  return deliveries.reduce((sum, { members }) => sum + countMembers(members), 0);
}

/** The lowest index of a set that is not empty. */
export function lowestMember(members: Members): number {
  return 31 - Math.clz32(members & -members);
}

/** The indexes of a set, ascending. */
export function* indexesOf(members: Members): Generator<number> {
  for (let left = members; left !== 0; left = (left & (left - 1)) >>> 0) yield lowestMember(left);
}

/** The `count` lowest members of a set, or all if it has fewer. */
export function lowestMembers(members: Members, count: number): Members {
  if (countMembers(members) <= count) return members;
  let taken = 0;
  let left = count;
  for (const index of indexesOf(members)) {
    if (left === 0) break;
    taken = union(taken, bitOf(index));
    left -= 1;
  }
  return taken;
}
