import { indexInPack, packIdOf } from '@rowmq/contract';

/*
 * The format of `deduplication.answer`: for each run of messages, the 16 bytes of the first id, and
 * two bytes. Ids of a run follow each other within a pack. The first byte is the number of
 * messages, plus 128 if they were duplicates themselves. The second one is the number of queues
 * that got each message. A request of 100 messages mostly takes less than 100 bytes, and 1800 at
 * most.
 */

/** A message as an enqueue answers it. */
export interface EnqueuedMessage {
  id: Buffer;
  /** True: nothing was stored for it. The id is that of the first message. */
  duplicate: boolean;
}

/** A message as a record has it. */
export interface RecordedMessage extends EnqueuedMessage {
  /** The number of queues that got it: 1 for an enqueued one. */
  subscriptions: number;
}

const ID_BYTES = 16;
const RUN_BYTES = ID_BYTES + 2;
const DUPLICATE = 128;

export function encodeAnswer(messages: readonly RecordedMessage[]): Buffer {
  const runs: { first: RecordedMessage; count: number }[] = [];
  let last: RecordedMessage | undefined;
  for (const message of messages) {
    const run = runs.at(-1);
    if (run !== undefined && last !== undefined && follows(last, message)) run.count += 1;
    else runs.push({ first: message, count: 1 });
    last = message;
  }
  return Buffer.concat(
    runs.flatMap(({ first: { id, duplicate, subscriptions }, count }) => [
      id,
      Buffer.of(count + (duplicate ? DUPLICATE : 0), subscriptions),
    ]),
  );
}

export function decodeAnswer(answer: Buffer): RecordedMessage[] {
  const messages: RecordedMessage[] = [];
  for (let at = 0; at < answer.length; at += RUN_BYTES) {
    const first = answer.subarray(at, at + ID_BYTES);
    const flags = answer.readUInt8(at + ID_BYTES);
    const subscriptions = answer.readUInt8(at + ID_BYTES + 1);
    for (let offset = 0; offset < flags % DUPLICATE; offset += 1) {
      const id = Buffer.from(first);
      id[ID_BYTES - 1] = (id[ID_BYTES - 1] as number) + offset;
      messages.push({ id, duplicate: flags >= DUPLICATE, subscriptions });
    }
  }
  return messages;
}

function follows(last: RecordedMessage, next: RecordedMessage): boolean {
  return (
    last.duplicate === next.duplicate &&
    last.subscriptions === next.subscriptions &&
    indexInPack(next.id) === indexInPack(last.id) + 1 &&
    packIdOf(next.id).equals(packIdOf(last.id))
  );
}
