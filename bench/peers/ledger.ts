import { performance } from 'node:perf_hooks';

const NUMBER_WIDTH = 12;
const INITIAL_CAPACITY = 1 << 16;

/** What was sent and what came back in one stretch: every message exactly once, unharmed, or {@link Ledger.verify} fails. */
export class Ledger {
  sent = 0;
  received = 0;
  private readonly filler: string;
  private readonly faults: string[] = [];
  private faultCount = 0;
  private seen = new Uint8Array(INITIAL_CAPACITY);
  private dueAt = new Float64Array(INITIAL_CAPACITY);

  constructor(bodyBytes: number) {
    this.filler = 'x'.repeat(bodyBytes - NUMBER_WIDTH);
  }

  /** The next bodies to send. A message's latency counts from when it was due. */
  bodies(count: number, due = performance.now()): string[] {
    return Array.from({ length: count }, () => {
      const number = this.sent;
      this.sent += 1;
      if (number >= this.seen.length) this.grow();
      this.dueAt[number] = due;
      return number.toString().padStart(NUMBER_WIDTH, '0') + this.filler;
    });
  }

  /** Notes a message that was handed out; returns when it was due. */
  receive(body: string): number {
    const number = Number(body.slice(0, NUMBER_WIDTH));
    this.received += 1;
    if (!(number < this.sent) || body.length !== NUMBER_WIDTH + this.filler.length) {
      this.fault(`an unknown message: ${body.slice(0, 40)}`);
      return Number.NaN;
    }
    if (this.seen[number] === 1) this.fault(`message ${number} twice`);
    this.seen[number] = 1;
    return this.dueAt[number] ?? Number.NaN;
  }

  /** Throws if anything that was sent did not come back exactly once. */
  verify(): void {
    const missing = this.sent - this.seen.subarray(0, this.sent).reduce((sum, one) => sum + one, 0);
    if (missing > 0) this.fault(`${missing} of ${this.sent} messages never came`);
    if (this.faultCount > 0)
      throw new Error(`Not what was sent (${this.faultCount} faults): ${this.faults.join('; ')}`);
  }

  private fault(what: string): void {
    this.faultCount += 1;
    if (this.faults.length < 5) this.faults.push(what);
  }

  private grow(): void {
    const seen = new Uint8Array(this.seen.length * 2);
    seen.set(this.seen);
    this.seen = seen;
    const dueAt = new Float64Array(this.dueAt.length * 2);
    dueAt.set(this.dueAt);
    this.dueAt = dueAt;
  }
}
