/** A request that waits, and the way to turn it away. */
export interface Guest {
  readonly bytes: number;
  readonly reject: (error: Error) => void;
}

/** Requests, and their bytes. */
export interface Room {
  requests: number;
  bytes: number;
}

/** Requests of one caller for one queue, in their order. */
interface Line<G> extends Room {
  readonly owner: Owner<G>;
  readonly queue: string;
  readonly guests: G[];
}

/** The lines of one caller, by queue. */
interface Owner<G> extends Room {
  readonly caller: string;
  readonly lines: Map<string, Line<G>>;
}

/**
 * The room in which requests wait for their batch. Each caller has a line for each queue.
 *
 * Anybody may use the whole room while it has space. When it is full, a request of somebody with
 * less than his share takes the last place of the longest line. That line is of the caller with the
 * most requests, or of the same caller. So a flood of one caller or one queue turns itself away,
 * and never the others.
 */
export class WaitingRoom<G extends Guest> {
  /** The line that is served next comes first. */
  private readonly lines = new Map<string, Line<G>>();
  private readonly owners = new Map<string, Owner<G>>();
  private readonly used: Room = { requests: 0, bytes: 0 };

  /** @param onFull makes the error of a request that finds no place, or loses it */
  constructor(
    private readonly limit: Room,
    private readonly onFull: (used: Room) => Error,
  ) {}

  /** Requests that wait. */
  get size(): number {
    return this.used.requests;
  }

  /** Lets a request wait. Throws if the room is full, and it is of somebody who has his share. */
  add(caller: string, queue: string, guest: G): void {
    while (this.used.requests >= this.limit.requests) this.makeRoom('requests', caller, queue);
    while (this.used.bytes + guest.bytes > this.limit.bytes) this.makeRoom('bytes', caller, queue);
    const line = this.lineOf(caller, queue);
    line.guests.push(guest);
    this.count(line, 1, guest.bytes);
  }

  /** Takes one request of each line in turn, as long as the next one is wanted. */
  *take(isWanted: (next: G) => boolean): Iterable<G> {
    // A line moves to the end after its turn, and the loop meets it again.
    for (const [key, line] of this.lines) {
      const next = line.guests[0] as G;
      if (!isWanted(next)) return;
      line.guests.shift();
      this.lines.delete(key);
      this.lines.set(key, line);
      this.count(line, -1, -next.bytes);
      yield next;
    }
  }

  private lineOf(caller: string, queue: string): Line<G> {
    const key = keyOf(caller, queue);
    const known = this.lines.get(key);
    if (known !== undefined) return known;
    let owner = this.owners.get(caller);
    if (owner === undefined) this.owners.set(caller, (owner = { caller, lines: new Map(), requests: 0, bytes: 0 }));
    const line = { owner, queue, guests: [], requests: 0, bytes: 0 };
    owner.lines.set(queue, line);
    this.lines.set(key, line);
    return line;
  }

  /** Turns away the last request of the longest line. Throws if the newcomer has his share. */
  private makeRoom(measure: keyof Room, caller: string, queue: string): void {
    const own = this.owners.get(caller);
    const hasShare = own !== undefined && own[measure] * this.owners.size >= this.used[measure];
    const owner = hasShare ? own : largest(this.owners.values(), measure);
    if (owner === own) {
      const line = own?.lines.get(queue);
      if (own === undefined || (line !== undefined && line[measure] * own.lines.size >= own[measure]))
        throw this.onFull(this.used);
    }
    const line = owner === undefined ? undefined : largest(owner.lines.values(), measure);
    if (line === undefined) throw this.onFull(this.used);
    const last = line.guests.pop() as G;
    this.count(line, -1, -last.bytes);
    last.reject(this.onFull(this.used));
  }

  private count(line: Line<G>, requests: number, bytes: number): void {
    const { owner, queue } = line;
    for (const room of [line, owner, this.used]) {
      room.requests += requests;
      room.bytes += bytes;
    }
    if (line.requests > 0) return;
    this.lines.delete(keyOf(owner.caller, queue));
    owner.lines.delete(queue);
    if (owner.requests === 0) this.owners.delete(owner.caller);
  }
}

function keyOf(caller: string, queue: string): string {
  return `${caller}\0${queue}`;
}

function largest<R extends Room>(rooms: Iterable<R>, measure: keyof Room): R | undefined {
  let found: R | undefined;
  for (const room of rooms) if (found === undefined || room[measure] > found[measure]) found = room;
  return found;
}
