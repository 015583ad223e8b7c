/**
 * No database server of the wanted kinds can be had on this machine; the message says what to do.
 */
export class ServerNotFoundError extends Error {
  override readonly name = 'ServerNotFoundError';

  constructor(reasons: readonly string[]) {
    super(
      [
        'No database server can be had on this machine:',
        ...reasons.map((reason) => `  - ${reason}`),
        'Do one of these:',
        '  - install MySQL 8.4 or later, or MariaDB 10.6 or later (on Debian and Ubuntu: apt-get install mariadb-server)',
        '  - set ROWMQ_DATABASE_URL=mysql://user:password@host:3306/database to use a server you run already',
        '  - start a Docker engine: docker-compose.yml runs everything, the database included',
      ].join('\n'),
    );
  }
}

/** Another live process uses the data folder. */
export class FolderLockedError extends Error {
  override readonly name = 'FolderLockedError';

  constructor(
    readonly folder: string,
    readonly holderPid: number,
  ) {
    super(
      `The data folder ${folder} is in use by process ${holderPid}. ` +
        'Stop that one first (Ctrl-C in its terminal, or send it SIGTERM), or set ROWMQ_DATA_DIR to another folder.',
    );
  }
}

/**
 * The embedded server could not be initialised, started or stopped; quotes the end of its error
 * log.
 */
export class EmbeddedServerError extends Error {
  override readonly name = 'EmbeddedServerError';

  constructor(what: string, logFile: string, logTail: string) {
    super(`${what}\nThe end of ${logFile}:\n${logTail.trimEnd() || '(empty)'}`);
  }
}

/** The code of a system error, such as `ENOENT`. */
export function systemErrorCode(error: unknown): string | undefined {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code === 'string' ? code : undefined;
}
