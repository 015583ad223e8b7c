/** A group that has nothing in line may put this many messages at the head of the line. */
export const TURN_MESSAGES = 32;
/** The most groups that a line remembers. A group that it forgets may take another turn. */
const GROUPS_REMEMBERED = 1000;

/**
 * Fairness among the groups of a queue without ordering, for one priority. Messages stand in line
 * by the time at which they become available. This says at which place a new message with a group
 * joins the line: at its end, as any other message would, or at its head.
 *
 * A group that has nothing in line takes a turn: up to {@link TURN_MESSAGES} messages go to the
 * head. Further ones go to the end. The group's next turn comes when the line has moved on, and has
 * reached the last of them. So a group that floods the queue waits behind itself, and the others
 * pass.
 *
 * Places are milliseconds. The end of the line is the last even one, and the head is the odd one
 * before the first message. If the first message has an odd place, it is at the head itself, and a
 * new one joins it. So all brokers agree on the head, also after a restart, and messages at the
 * head keep the order of their commits.
 */
export class FairLine {
  /** The place at the head that was used last. No place before it matters. */
  head = 0;
  /** By group, the messages that it has put at this head. */
  private readonly turns = new Map<string, number>();
  /** By group, the place of its last message that did not go to the head. */
  private readonly inLine = new Map<string, number>();

  /**
   * The place of a new message.
   *
   * @param first the place of the first message that is ready; undefined if none is
   */
  place(groupId: string, first: number | undefined, now: number): number {
    const end = now - (now % 2);
    const head = Math.min(end - 1, first === undefined ? end : first - 1 + (first % 2));
    if (head !== this.head) this.turns.clear();
    this.head = head;
    const used = this.turns.get(groupId) ?? 0;
    const hasRoom = used < TURN_MESSAGES && (used > 0 || this.turns.size < GROUPS_REMEMBERED);
    if (hasRoom && (this.inLine.get(groupId) ?? 0) < head) {
      this.turns.set(groupId, used + 1);
      return head;
    }
    this.inLine.delete(groupId);
    this.inLine.set(groupId, end);
    const [oldest] = this.inLine.keys();
    if (this.inLine.size > GROUPS_REMEMBERED && oldest !== undefined) this.inLine.delete(oldest);
    return end;
  }
}
