import { setTimeout as sleep } from 'node:timers/promises';
import { Injectable, Logger } from '@nestjs/common';
import {
  formatMessageId,
  LIMITS,
  lowestMessageId,
  mostPackBytes,
  parseMessageId,
  type ReplayAnswer,
  type replayRequest,
} from '@rowmq/contract';
import { countMembers, QueueRepository, type SettledPack, SettledRepository } from '@rowmq/store';
import type { z } from 'zod';
import { Commits } from '../messages/commits.js';
import { Metrics } from '../metrics/metrics.js';

/** The packs of all queues that one step examines. */
const STEP_ROWS = 1000;
/** The messages that are stored at a time, at most, and their bytes. A pack is never divided. */
const CHUNK_MESSAGES = 256;
const CHUNK_BYTES = LIMITS.answerBytes / 2;
/** The parts of a second into which the rate divides what is stored at a time. */
const CHUNKS_A_SECOND = 4;
/** A call answers after this long, with its counts so far and a cursor. */
const CALL_MS = LIMITS.sweepSeconds * 1000;

/** Enqueues settled messages again. */
@Injectable()
export class ReplayService {
  private readonly logger = new Logger(ReplayService.name);

  constructor(
    private readonly queues: QueueRepository,
    private readonly settled: SettledRepository,
    private readonly commits: Commits,
    private readonly metrics: Metrics,
  ) {}

  /**
   * Copies settled messages of a queue into new packs, in the order of their ids, through the
   * ordinary enqueue. The new messages name their originals. Copies are not copied again.
   *
   * The answer's cursor is the last pack that was copied. If the call fails after that, it answers
   * all the same, so that a repeat goes on there. A repeat without the answer copies again what
   * this call had copied.
   *
   * Throws `queue-not-found`, and the errors of enqueue if nothing was copied.
   */
  async replay(name: string, request: z.output<typeof replayRequest>): Promise<ReplayAnswer> {
    const { toQueue = name, messagesPerSecond } = request;
    const queue = await this.queues.getFresh(name);
    await this.queues.getFresh(toQueue);
    const begunAt = performance.now();
    const before = boundAt(request.to);
    const most = Math.min(CHUNK_MESSAGES, messagesPerSecond / CHUNKS_A_SECOND);
    let [replayed, owed] = [0, 0];
    let after: Buffer | null = request.cursor === undefined ? boundAt(request.from) : parseMessageId(request.cursor);
    try {
      while (after !== null && performance.now() - begunAt < CALL_MS) {
        const { packs, next } = await this.settled.find(queue.id, after, before, STEP_ROWS);
        let left = packs;
        while (left.length > 0 && performance.now() - begunAt < CALL_MS) {
          const chunk = chunkOf(left, most);
          replayed += await this.copy(chunk, toQueue);
          owed += chunk.reduce((sum, pack) => sum + countMembers(pack.owed), 0);
          after = (chunk.at(-1) as SettledPack).id;
          left = left.slice(chunk.length);
          await sleep(Math.max(0, (replayed * 1000) / messagesPerSecond - (performance.now() - begunAt)));
        }
        if (left.length === 0) after = next;
      }
    } catch (error) {
      if (replayed === 0) throw error;
      this.logger.warn(`A replay of queue '${name}' stopped after ${replayed} messages: ${String(error)}`);
    }
    return { replayed, owed, complete: after === null, cursor: after === null ? null : formatMessageId(after) };
  }

  /** Returns the number of new messages. */
  private async copy(packs: readonly SettledPack[], toQueue: string): Promise<number> {
    const settled = await this.settled.read(packs);
    const messages = settled
      .filter(({ replayOf }) => replayOf === undefined)
      .map(({ id, body, headers, groupId }) => ({
        body,
        headers,
        replayOf: id,
        ...(groupId !== undefined && { groupId }),
        priority: LIMITS.priorityDefault,
        delaySeconds: 0,
      }));
    if (messages.length === 0) return 0;
    await this.commits.enqueue({ queueName: toQueue, messages });
    this.metrics.count('replayed', toQueue, messages.length);
    return messages.length;
  }
}

/** An id before those of all packs from this time on. */
function boundAt(time: string): Buffer {
  return lowestMessageId(Math.max(0, Date.parse(time)));
}

/** The first of these packs that are stored at a time; at least one. */
function chunkOf(packs: readonly SettledPack[], most: number): readonly SettledPack[] {
  let [messages, bytes] = [0, 0];
  const end = packs.findIndex(({ id, settled }) => {
    if (settled === 0) return false;
    messages += countMembers(settled);
    bytes += mostPackBytes(id);
    return messages > most || bytes > CHUNK_BYTES;
  });
  return end < 0 ? packs : packs.slice(0, Math.max(1, end));
}
