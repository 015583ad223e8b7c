import { poolOf } from '@rowmq/store';
import type { DataSource } from 'typeorm';

const REAL_TIME = 'SET timestamp = DEFAULT';

/**
 * The database's clock as some sessions see it. A test moves it, and every statement then runs as
 * in production, but at that instant. NOW() and UTC_TIMESTAMP() follow `SET timestamp`.
 */
export class SessionClock {
  private readonly set = new WeakMap<object, string>();

  /** @param now ms since 1970; undefined: the real time */
  constructor(private readonly now: () => number | undefined) {}

  /** From their next use on, the sessions of this data source's pool use this clock. */
  drive(source: DataSource): void {
    poolOf(source).on('acquire', (session) => {
      const { statement } = this;
      if ((this.set.get(session) ?? REAL_TIME) === statement) return;
      this.set.set(session, statement);
      session.query({ sql: statement }, () => undefined);
    });
  }

  /**
   * Sets the clock of one session. MariaDB stores a floating-point number and truncates it, hence
   * the `.4`.
   */
  get statement(): string {
    const now = this.now();
    return now === undefined ? REAL_TIME : `SET timestamp = ${now}.4 / 1000`;
  }
}
