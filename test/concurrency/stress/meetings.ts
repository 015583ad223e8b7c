import { AsyncLocalStorage } from 'node:async_hooks';
import { Database, type Row, type Session, type Transaction, type WriteResult } from '@rowmq/store';
import type { DataSource } from 'typeorm';

/** An operation on queues. */
export interface Operation {
  kind: string;
  /** The queues that it may touch. */
  queues: readonly string[];
}

type Pair = readonly [string, string];

/** Counts which kinds of operations had open transactions on the same queue at the same time. */
export class Meetings {
  private readonly operations = new AsyncLocalStorage<Operation>();
  /** One entry for each open transaction. */
  private readonly underWay = new Set<{ operation: Operation }>();
  private readonly counts = new Map<string, number>();
  private readonly awaited: Map<string, Pair>;

  /** @param readers Kinds that take no locks. Their plain reads count as transactions. */
  constructor(
    readonly kinds: readonly string[],
    private readonly readers: ReadonlySet<string>,
  ) {
    const pairs = kinds.flatMap((one, index) => kinds.slice(index).map((other): Pair => [one, other]));
    this.awaited = new Map(pairs.map((pair) => [keyOf(pair), pair]));
  }

  /** Runs an operation. Transactions that {@link during} runs meanwhile belong to it. */
  async carryOut<T>(operation: Operation, work: () => Promise<T>): Promise<T> {
    return this.operations.run(operation, work);
  }

  /** Runs a transaction of the current operation and counts the operations that it meets. */
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

  /** True if the current operation only reads. */
  get isReading(): boolean {
    const operation = this.operations.getStore();
    return operation !== undefined && this.readers.has(operation.kind);
  }

  /** The pairs that have not met. */
  get missing(): Pair[] {
    return [...this.awaited.values()];
  }

  /** A table of meetings: a line for each kind, and a column for each kind up to itself. */
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
    // In the order of the list of kinds.
    const key = keyOf(this.kinds.indexOf(one) <= this.kinds.indexOf(other) ? [one, other] : [other, one]);
    this.counts.set(key, (this.counts.get(key) ?? 0) + 1);
    this.awaited.delete(key);
  }
}

function keyOf([one, other]: Pair): string {
  return `${one} + ${other}`;
}

/**
 * A database that reports its transactions to {@link Meetings}. They begin with the wait for a
 * connection or the first statement, and end with COMMIT.
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
