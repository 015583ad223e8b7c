import { RowmqError } from '@rowmq/contract';
import { mayLieInOneRequest } from '@rowmq/store';

/** What a request weighs. */
export interface Weight {
  rows: number;
  bytes: number;
}

export interface BatcherLimits {
  /** Of one flight; its first request may be larger. */
  requests: number;
  rows: number;
  bytes: number;
  /** Flights at a time, at most. */
  flights: number;
  /** Requests that may wait, and their bytes. */
  waitingRequests: number;
  waitingBytes: number;
}

export interface BatcherOptions<Request, Answer> {
  /**
   * Carries out a flight, all or nothing, and answers for each request in order, with an `Error` for one that is refused. Throws if nothing was carried out.
   */
  fly: (requests: readonly Request[]) => Promise<readonly (Answer | Error)[]>;
  weigh: (request: Request) => Weight;
  limits: BatcherLimits;
  /** A flight takes requests of one lane only, and each lane has one flight at a time: two would wait for each other. */
  lanesApart?: boolean;
  /** Told of every flight that landed. */
  onFlight?: (flight: { rows: number; ms: number }) => void;
}

/**
 * Batches of one verb that run at the same time, slow ones not counted. A second one would take
 * requests from the next batch: on two cores that run everything, one at a time did 20 to 50 % more than three.
 */
const FLIGHTS_AT_A_TIME = 1;
/** A flight that takes this long waits for something, a lock mostly: those behind it need not. */
const SLOW_MS = 100;
/** A request that waits this long for its flight is refused: whoever sent it has given up, or will soon. */
const WAIT_MS = 10_000;

type Lanes<Request, Answer> = Map<string, Waiting<Request, Answer>[]>;

interface Waiting<Request, Answer> {
  request: Request;
  weight: Weight;
  since: number;
  resolve: (answer: Answer) => void;
  reject: (error: Error) => void;
}

/**
 * Natural batching (group commit) of one verb: while a flight is under way, the requests that come queue up and become the next one. There is no timer: a request that finds nothing under way flies with
 * those that arrived in the same turn of the event loop.
 *
 * Each queue has a lane, and a flight takes one request of each lane in turn, so a busy queue cannot hold up the others; or, with lanes apart, one lane's requests. One flight is
 * under way at a time, and one more beside each slow one, up to a limit.
 */
export class Batcher<Request, Answer> {
  /** Who waits, in lanes that may board. */
  private readonly lanes: Lanes<Request, Answer> = new Map();
  /** Lanes apart that have a flight under way. */
  private readonly away: Lanes<Request, Answer> = new Map();
  private flying = 0;
  /** Of those, the slow ones. */
  private slow = 0;
  private waitingRequests = 0;
  private waitingBytes = 0;
  private isScheduled = false;

  constructor(private readonly options: BatcherOptions<Request, Answer>) {}

  /** Requests that wait for a flight. */
  get waiting(): number {
    return this.waitingRequests;
  }

  /**
   * Carries out a request with others. Throws what it was refused with, or what its flight failed with; and `overloaded`, with nothing carried out, when too many wait or its turn comes too late to be of use.
   */
  async submit(lane: string, request: Request): Promise<Answer> {
    const { limits, weigh } = this.options;
    const weight = weigh(request);
    if (this.waitingRequests >= limits.waitingRequests || this.waitingBytes + weight.bytes > limits.waitingBytes) {
      throw overloaded(`${this.waitingRequests} requests wait on this broker already`);
    }
    this.waitingRequests += 1;
    this.waitingBytes += weight.bytes;
    return new Promise((resolve, reject) => {
      const waiting = { request, weight, since: performance.now(), resolve, reject };
      const others = this.lanes.get(lane) ?? this.away.get(lane);
      if (others === undefined) this.lanes.set(lane, [waiting]);
      else others.push(waiting);
      this.schedule();
    });
  }

  /** Takes off when this turn of the event loop has read everything that arrived. */
  private schedule(): void {
    if (this.isScheduled || !this.mayTakeOff()) return;
    this.isScheduled = true;
    setImmediate(() => {
      this.isScheduled = false;
      while (this.mayTakeOff() && this.lanes.size > 0) {
        const [lane = ''] = this.lanes.keys();
        const flight = this.options.lanesApart ? this.boardApart(lane) : this.board(this.lanes);
        if (flight.length > 0) void this.fly(flight, lane);
      }
    });
  }

  private mayTakeOff(): boolean {
    return this.flying - this.slow < FLIGHTS_AT_A_TIME && this.flying < this.options.limits.flights;
  }

  /** Takes what fits into a flight, one request of each lane in turn. Lanes that were served go to the end of the line. */
  private board(lanes: Lanes<Request, Answer>): Waiting<Request, Answer>[] {
    const { requests, rows, bytes } = this.options.limits;
    const flight: Waiting<Request, Answer>[] = [];
    const weight: Weight = { rows: 0, bytes: 0 };
    const latest = performance.now() - WAIT_MS;
    // A lane that was served is put at the end, and so met again if there is still room.
    for (const [lane, waiting] of lanes) {
      const next = waiting[0] as Waiting<Request, Answer>;
      const isFull =
        flight.length >= requests || weight.rows + next.weight.rows > rows || weight.bytes + next.weight.bytes > bytes;
      if (isFull && flight.length > 0) break;
      waiting.shift();
      lanes.delete(lane);
      if (waiting.length > 0) lanes.set(lane, waiting);
      this.waitingRequests -= 1;
      this.waitingBytes -= next.weight.bytes;
      if (next.since < latest) {
        next.reject(overloaded('The database is slower than the requests come'));
        continue;
      }
      flight.push(next);
      weight.rows += next.weight.rows;
      weight.bytes += next.weight.bytes;
    }
    return flight;
  }

  /** The same from one lane, out of which nobody boards again before the flight has landed. */
  private boardApart(lane: string): Waiting<Request, Answer>[] {
    const waiting = this.lanes.get(lane) ?? [];
    this.lanes.delete(lane);
    const flight = this.board(new Map([[lane, waiting]]));
    if (flight.length > 0) this.away.set(lane, waiting);
    return flight;
  }

  private async fly(flight: Waiting<Request, Answer>[], lane: string): Promise<void> {
    this.flying += 1;
    const started = performance.now();
    let isSlow = false;
    const timer = setTimeout(() => {
      isSlow = true;
      this.slow += 1;
      this.schedule();
    }, SLOW_MS);
    await this.carryOut(flight);
    clearTimeout(timer);
    this.flying -= 1;
    if (isSlow) this.slow -= 1;
    const behind = this.away.get(lane) ?? [];
    this.away.delete(lane);
    if (behind.length > 0) this.lanes.set(lane, behind);
    const rows = flight.reduce((sum, { weight }) => sum + weight.rows, 0);
    const ms = performance.now() - started;
    this.options.onFlight?.({ rows, ms });
    this.schedule();
  }

  /** Settles every request of a flight. If the flight fails for a reason that may lie in one request, it is halved, so that only this one fails. */
  private async carryOut(flight: Waiting<Request, Answer>[]): Promise<void> {
    let answers: readonly (Answer | Error)[];
    try {
      answers = await this.options.fly(flight.map(({ request }) => request));
    } catch (error) {
      if (flight.length === 1 || !mayLieInOneRequest(error)) {
        for (const { reject } of flight) reject(error as Error);
        return;
      }
      const half = Math.ceil(flight.length / 2);
      await this.carryOut(flight.slice(0, half));
      await this.carryOut(flight.slice(half));
      return;
    }
    for (const [index, { resolve, reject }] of flight.entries()) {
      const answer = answers[index] as Answer | Error;
      if (answer instanceof Error) reject(answer);
      else resolve(answer);
    }
  }
}

function overloaded(why: string): RowmqError {
  return new RowmqError('overloaded', `${why}; try again later.`, { retryAfterSeconds: 1 });
}
