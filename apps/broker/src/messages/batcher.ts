import { RowmqError } from '@rowmq/contract';
import { mayLieInOneRequest } from '@rowmq/store';
import { WaitingRoom } from './waiting-room.js';

/** The size of a request. */
export interface Weight {
  rows: number;
  bytes: number;
}

export interface BatcherLimits {
  /** The most of one batch. Its first request may be larger by itself. */
  requests: number;
  rows: number;
  bytes: number;
  /** Most batches in flight. */
  batches: number;
  /** Requests that may wait, and their bytes. */
  waitingRequests: number;
  waitingBytes: number;
}

export interface BatcherOptions<Request, Answer> {
  /**
   * Carries out a batch, all or nothing. Answers each request in order, a refused one with an
   * `Error`. Throws if nothing was carried out.
   */
  commit: (requests: readonly Request[]) => Promise<readonly (Answer | Error)[]>;
  weigh: (request: Request) => Weight;
  limits: BatcherLimits;
  /** Told of every batch that begins. It calls the result when the batch has ended. */
  onBegin?: () => () => void;
  /** Told of every batch that ended. */
  onBatch?: (batch: { rows: number; ms: number }) => void;
}

/**
 * Batches of one verb in flight, slow ones not counted. A second one would take requests from the
 * next batch. On two cores that run everything, one at a time did 20 to 50 % more than three.
 */
const BATCHES_AT_A_TIME = 1;
/**
 * A batch that takes this long waits for something, mostly a lock. Another one may start beside it.
 */
const SLOW_MS = 100;
/**
 * A request that waits this long for its batch is refused: its client has given up, or soon will.
 */
export const WAIT_MS = 10_000;

interface Waiting<Request, Answer> {
  request: Request;
  weight: Weight;
  bytes: number;
  since: number;
  resolve: (answer: Answer) => void;
  reject: (error: Error) => void;
}

/**
 * Group commit of one verb. While a batch is in flight, new requests wait and form the next one.
 * There is no timer: a request that finds no batch in flight goes with the requests of the same
 * turn of the event loop.
 *
 * Each queue has a line. A batch takes one request of each line in turn, so a busy queue does not
 * hold up the others, nor does it take their place ({@link WaitingRoom}). One batch is in flight at
 * a time, and one more beside each slow one, up to a limit.
 */
export class Batcher<Request, Answer> {
  private readonly room: WaitingRoom<Waiting<Request, Answer>>;
  private inFlight = 0;
  /** Slow batches among those in flight. */
  private slow = 0;
  private isScheduled = false;

  constructor(private readonly options: BatcherOptions<Request, Answer>) {
    const { waitingRequests, waitingBytes } = options.limits;
    this.room = new WaitingRoom({ requests: waitingRequests, bytes: waitingBytes }, ({ requests, bytes }) =>
      overloaded(`${requests} requests with ${bytes} bytes of messages wait on this broker already`),
    );
  }

  /** Requests that wait for a batch. */
  get waiting(): number {
    return this.room.size;
  }

  /**
   * Carries out a request with others. Throws the request's refusal, or the failure of its batch.
   * Throws `overloaded`, with nothing carried out, if too many requests wait or this one waited too
   * long.
   *
   * @param caller names who shares the room with other callers
   */
  async submit(queue: string, request: Request, caller = ''): Promise<Answer> {
    const weight = this.options.weigh(request);
    return new Promise((resolve, reject) => {
      const waiting = { request, weight, bytes: weight.bytes, since: performance.now(), resolve, reject };
      this.room.add(caller, queue, waiting);
      this.schedule();
    });
  }

  /** Starts a batch after this turn of the event loop has read every request that arrived. */
  private schedule(): void {
    if (this.isScheduled || !this.mayStart()) return;
    this.isScheduled = true;
    setImmediate(() => {
      this.isScheduled = false;
      while (this.mayStart() && this.room.size > 0) {
        const batch = this.collect();
        if (batch.length > 0) void this.run(batch);
      }
    });
  }

  private mayStart(): boolean {
    return this.inFlight - this.slow < BATCHES_AT_A_TIME && this.inFlight < this.options.limits.batches;
  }

  /** Collects the next batch, one request of each line in turn. */
  private collect(): Waiting<Request, Answer>[] {
    const { requests, rows, bytes } = this.options.limits;
    const batch: Waiting<Request, Answer>[] = [];
    const weight: Weight = { rows: 0, bytes: 0 };
    const latest = performance.now() - WAIT_MS;
    const hasRoomFor = (next: Waiting<Request, Answer>): boolean =>
      batch.length < requests && weight.rows + next.weight.rows <= rows && weight.bytes + next.weight.bytes <= bytes;
    for (const next of this.room.take((one) => batch.length === 0 || hasRoomFor(one))) {
      if (next.since < latest) {
        next.reject(overloaded('The database is slower than the requests come'));
        continue;
      }
      batch.push(next);
      weight.rows += next.weight.rows;
      weight.bytes += next.weight.bytes;
    }
    return batch;
  }

  private async run(batch: Waiting<Request, Answer>[]): Promise<void> {
    this.inFlight += 1;
    const ended = this.options.onBegin?.();
    const started = performance.now();
    let isSlow = false;
    const timer = setTimeout(() => {
      isSlow = true;
      this.slow += 1;
      this.schedule();
    }, SLOW_MS);
    await this.carryOut(batch);
    ended?.();
    clearTimeout(timer);
    this.inFlight -= 1;
    if (isSlow) this.slow -= 1;
    const rows = batch.reduce((sum, { weight }) => sum + weight.rows, 0);
    this.options.onBatch?.({ rows, ms: performance.now() - started });
    this.schedule();
  }

  /**
   * Settles every request of a batch. If the batch fails for a reason that may lie in one request,
   * it is halved until only that request fails.
   */
  private async carryOut(batch: Waiting<Request, Answer>[]): Promise<void> {
    let answers: readonly (Answer | Error)[];
    try {
      answers = await this.options.commit(batch.map(({ request }) => request));
    } catch (error) {
      if (batch.length === 1 || !mayLieInOneRequest(error)) {
        for (const { reject } of batch) reject(error as Error);
        return;
      }
      const half = Math.ceil(batch.length / 2);
      await this.carryOut(batch.slice(0, half));
      await this.carryOut(batch.slice(half));
      return;
    }
    for (const [index, { resolve, reject }] of batch.entries()) {
      const answer = answers[index] as Answer | Error;
      if (answer instanceof Error) reject(answer);
      else resolve(answer);
    }
  }
}

export function overloaded(why: string): RowmqError {
  return new RowmqError('overloaded', `${why}; try again later.`, { retryAfterSeconds: 1 });
}
