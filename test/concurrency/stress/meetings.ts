import { AsyncLocalStorage } from 'node:async_hooks';
import { Database, type Row, type Session, type Transaction, type WriteResult } from '@rowmq/store';
import type { DataSource } from 'typeorm';

/** Something that is done to queues. */
export interface Operation {
  kind: string;
  /** The queues it may touch. */
  queues: readonly string[];
}

type Pair = readonly [string, string];

/**
 * Counts which kinds of operations had transactions under way on the same queue at the same time.
 */
export class Meetings {
  private readonly operations = new AsyncLocalStorage<Operation>();
  /** One entry for each transaction. */
  private readonly underWay = new Set<{ operation: Operation }>();
  private readonly counts = new Map<string, number>();
  private readonly awaited: Map<string, Pair>;

  /** @param readers kinds that take no locks: their plain reads count as transactions. */
  constructor(
    readonly kinds: readonly string[],
    private readonly readers: ReadonlySet<string>,
  ) {
    const pairs = kinds.flatMap((one, index) => kinds.slice(index).map((other): Pair => [one, other]));
    this.awaited = new Map(pairs.map((pair) => [keyOf(pair), pair]));
  }

  /** Carries out an operation: what {@link during} is told of meanwhile is part of it. */
  async carryOut<T>(operation: Operation, work: () => Promise<T>): Promise<T> {
    return this.operations.run(operation, work);
  }

  /** Carries out a transaction of the operation under way, and counts whom it meets. */
  async during<T>(transaction: () => Promise<T>): Promise<T> {
    const operation = this.operations.getStore();
    if (operation === undefined) return transaction();
    for (const { operation: other } of this.underWay) {
      if (other !== operation && other.queues.some((queue) => operation.queues.includes(queue))) {
        this.count(other.kind, operation.kind);
      }
    }
    const own = { operation };
    this.underWay.add(own);
    try {
      return await transaction();
    } finally {
      this.underWay.delete(own);
    }
  }

  /** Whether the operation under way is of a kind that only reads. */
  get isReading(): boolean {
    const operation = this.operations.getStore();
    return operation !== undefined && this.readers.has(operation.kind);
  }

  /** Pairs that have not met yet. */
  get missing(): Pair[] {
    return [...this.awaited.values()];
  }

  /**
   * How often each pair met: a line for each kind, with a column for each of those before it and
   * itself.
   */
  matrix(): string {
    const width = Math.max(...this.kinds.map(({ length }) => length));
    const head = `${' '.repeat(width + 4)}${this.kinds.map((_, index) => String(index + 1).padStart(7)).join('')}`;
    const lines = this.kinds.map((one, index) => {
      const cells = this.kinds.slice(0, index + 1).map((other) => String(this.counts.get(keyOf([other, one])) ?? 0));
      return `${String(index + 1).padStart(3)} ${one.padEnd(width)}${cells.map((cell) => cell.padStart(7)).join('')}`;
    });
    return [head, ...lines].join('\n');
  }

  private count(one: string, other: string): void {
    // In the order in which the kinds are listed.
    const key = keyOf(this.kinds.indexOf(one) <= this.kinds.indexOf(other) ? [one, other] : [other, one]);
    this.counts.set(key, (this.counts.get(key) ?? 0) + 1);
    this.awaited.delete(key);
  }
}

function keyOf([one, other]: Pair): string {
  return `${one} + ${other}`;
}

/**
 * A database whose transactions are told to {@link Meetings}: from their first statement, or the
 * wait for a connection, to their COMMIT.
 */
export class ObservedDatabase extends Database {
  constructor(
    dataSource: DataSource,
    private readonly meetings: Meetings,
  ) {
    super(dataSource);
  }

  override async transaction<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
    return this.meetings.during(() => super.transaction(work));
  }

  override async write(sql: string, values?: readonly unknown[]): Promise<WriteResult> {
    return this.meetings.during(() => super.write(sql, values));
  }

  override async exclusive<T>(work: (session: Session) => Promise<T>, statementDeadlineMs?: number): Promise<T> {
    return this.meetings.during(() => super.exclusive(work, statementDeadlineMs));
  }

  override async read<T = Row>(sql: string, values?: readonly unknown[]): Promise<T[]> {
    const read = (): Promise<T[]> => super.read<T>(sql, values);
    return this.meetings.isReading ? this.meetings.during(read) : read();
  }
}
