/** One transaction of a deadlock. */
export interface Deadlocked {
  /**
   * The statement that it was executing. The server may have truncated the text. Empty if the log
   * does not show it.
   */
  statement: string;
  /** The index entry that it waited for: `index of table`. */
  waitsFor: string;
}

/**
 * Reads all deadlocks, with their transactions, from the log of a MariaDB server that prints them
 * (`innodb_print_all_deadlocks`).
 *
 * If a part cannot be parsed, its statement is empty, but the deadlock still counts.
 */
export function readDeadlocks(log: string): Deadlocked[][] {
  // Other lines of the server may stand in the middle of a report.
  const lines = log.split('\n').filter((line) => !/^\S+ +\S+ \d+ \[(?:Warning|ERROR)\]/.test(line));
  const [, ...reports] = lines.join('\n').split('InnoDB: Transactions deadlock detected');
  return reports.map((report) => {
    const [, ...transactions] = report.split(/^\*\*\* \(\d+\) TRANSACTION:$/m);
    return transactions.map(readTransaction);
  });
}

const STATEMENT = /^MariaDB thread id .*\n([^]*?)\n.*InnoDB: \*\*\* WAITING FOR THIS LOCK TO BE GRANTED:$/m;
const WAITS_FOR =
  /WAITING FOR THIS LOCK TO BE GRANTED:\n+RECORD LOCKS .* index (\w+) of table `[^`]+`\.`([^`]+)` .* waiting$/m;

function readTransaction(text: string): Deadlocked {
  const [, index, table] = WAITS_FOR.exec(text) ?? [];
  return {
    statement: STATEMENT.exec(text)?.[1]?.trim() ?? '',
    waitsFor: index === undefined ? '' : `${index} of ${table}`,
  };
}
