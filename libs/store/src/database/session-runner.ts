import { type DataSource, type EntityManager, QueryResult } from 'typeorm';
import { MysqlDriver } from 'typeorm/driver/mysql/MysqlDriver.js';
import { MysqlQueryRunner } from 'typeorm/driver/mysql/MysqlQueryRunner.js';
import type { Session } from './session.js';

/**
 * Runs TypeORM's statements on one of our sessions. TypeORM's own pool access has no deadline, no
 * retry and no proof that the server takes writes.
 */
class SessionRunner extends MysqlQueryRunner {
  constructor(
    driver: MysqlDriver,
    private readonly session: Session,
  ) {
    super(driver, 'master');
  }

  override async query<T = unknown>(sql: string, values?: unknown[], useStructuredResult?: false): Promise<T>;
  override async query<T = unknown>(
    sql: string,
    values: unknown[] | undefined,
    useStructuredResult: true,
  ): Promise<QueryResult<T>>;
  override async query(sql: string, values: unknown[] = [], useStructuredResult = false): Promise<unknown> {
    if (sql.startsWith('SELECT')) {
      const rows = await this.session.read(sql, values);
      return useStructuredResult ? Object.assign(new QueryResult(), { raw: rows, records: rows }) : rows;
    }
    const answer = await this.session.write(sql, values);
    return useStructuredResult
      ? Object.assign(new QueryResult(), { raw: answer, affected: answer.affectedRows })
      : answer;
  }

  /** Does nothing: the session's owner releases it. */
  override async release(): Promise<void> {
    await Promise.resolve();
  }
}

/**
 * TypeORM's repositories and query builders on a session. They run single statements and begin no
 * transaction.
 */
export function managerOn(dataSource: DataSource, session: Session): EntityManager {
  const { driver } = dataSource;
  if (!(driver instanceof MysqlDriver)) throw new TypeError('The data source is not one of MySQL.');
  return dataSource.createEntityManager(new SessionRunner(driver, session));
}
