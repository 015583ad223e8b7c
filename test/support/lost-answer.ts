import type { Database, Transaction } from '@rowmq/store';

/**
 * A database that commits a transaction, loses the answer, and is unreachable for a while. A
 * failover may do this to a COMMIT. `meanwhile` runs before the retry.
 */
export function losingAnswers(database: Database, meanwhile = async (): Promise<void> => undefined): Database {
  const forgetful = Object.create(database) as Database;
  forgetful.transaction = async <T>(work: (tx: Transaction) => Promise<T>): Promise<T> => {
    await database.transaction(work);
    await meanwhile();
    // Not a copy of `tx`: it could not tell the database that a transaction is open.
    return database.transaction((tx) => work(Object.assign(tx, { commitUnknown: true })));
  };
  return forgetful;
}
