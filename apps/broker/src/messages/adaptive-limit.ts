/** Flights between two changes of a limit. */
const ROUND = 16;
/**
 * Round-trip times, in multiples of the shortest ones seen: below the first the database has room for more at a time, above the second it has too much. Cautious, since one flight at a time is never wrong: what would have been a
 * second flight makes the next one larger. On two cores that run everything, one a verb did 20 to 50 % more than three.
 */
const ROOM_BELOW = 1.25;
const CROWDED_ABOVE = 2;
/** The shortest round-trip times are forgotten after this long: what the database can do changes. They are then measured with one flight at a time, else a crowded database would come to count as an idle one. */
const MEMORY_MS = 30_000;

/**
 * How many flights of one verb may be under way, found by TCP Vegas' rule (Brakmo and Peterson, 1994): while the round trip takes about as long as it does in an idle database, one more is let in; when it takes
 * several times that, the work waits in the database's queues, where it only costs, and one fewer is let in. A flight's round trip grows with its size, so it is compared with flights of
 * its own size, to the nearest power of two.
 */
export class AdaptiveLimit {
  private limit = 1;
  private readonly shortest = new Map<number, number>();
  private forgetAt = performance.now() + MEMORY_MS;
  private flights = 0;
  private stretch = 0;
  private wasReached = false;
  /** While one flight at a time measures the shortest round trips anew. */
  private limitBeforeProbe: number | undefined;

  constructor(private readonly max: number) {}

  /** Flights that may be under way at this moment. */
  get value(): number {
    return this.limit;
  }

  /** A flight of so many rows took so long; `wasReached`: others would have flown beside it, had the limit allowed. */
  landed(rows: number, ms: number, wasReached: boolean): void {
    const size = Math.floor(Math.log2(Math.max(rows, 1)));
    this.forget();
    this.shortest.set(size, Math.min(this.shortest.get(size) ?? Infinity, ms));
    this.stretch += ms / Math.max(this.shortest.get(size) ?? ms, 0.1);
    this.wasReached ||= wasReached;
    this.flights += 1;
    if (this.flights < ROUND) return;
    const stretch = this.stretch / this.flights;
    if (this.limitBeforeProbe !== undefined) {
      this.limit = this.limitBeforeProbe;
      this.limitBeforeProbe = undefined;
    } else if (stretch > CROWDED_ABOVE) this.limit = Math.max(1, this.limit - 1);
    else if (stretch < ROOM_BELOW && this.wasReached) this.limit = Math.min(this.max, this.limit + 1);
    this.startRound();
  }

  private startRound(): void {
    this.flights = 0;
    this.stretch = 0;
    this.wasReached = false;
  }

  private forget(): void {
    const now = performance.now();
    if (now < this.forgetAt) return;
    this.forgetAt = now + MEMORY_MS;
    this.shortest.clear();
    this.limitBeforeProbe ??= this.limit;
    this.limit = 1;
    this.startRound();
  }
}
