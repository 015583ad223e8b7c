/** One transaction of a deadlock. */
export interface Deadlocked {
  /**
   * The statement that it was executing; the server may have cut the text short. Empty if the log
   * does not tell.
   */
  statement: string;
  /** The index entry that it waited for: `index of table`. */
  waitsFor: string;
}

/**
 * Reads the deadlocks out of the log of a MariaDB server that prints them all
 * (`innodb_print_all_deadlocks`): for each, its transactions.
 *
 * If a part cannot be parsed, its statement is empty, but the deadlock still counts.
 */
export function readDeadlocks(log: string): Deadlocked[][] {
  // Whatever else the server had to say may stand in the middle of a report.
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
