import { dirname } from 'node:path';
import { totalmem } from 'node:os';
import type { ServerKind } from './server-program.js';

/** The server allocates its redo log at the start, whether it needs it or not. */
const LARGEST_REDO_MB = 256;

/** The inputs of an embedded server's command line. */
export interface ServerSettings {
  readonly kind: ServerKind;
  readonly data: string;
  readonly port: number;
  readonly socket: string;
  readonly pidFile: string;
  /** Undefined: no statements at the start. */
  readonly initFile: string | undefined;
  readonly bufferPoolMegabytes: number;
}

/**
 * Options every run needs, the initialisation included. `--no-defaults` must come first: the
 * machine's my.cnf is not ours.
 */
export function basicArguments(data: string): string[] {
  const root = process.getuid?.() === 0;
  // Both servers refuse to run as root unless told so in as many words. MariaDB clears its
  // temporary folder when it starts: a shared one would take other servers' temporary tables with
  // it.
  return ['--no-defaults', `--datadir=${data}`, `--tmpdir=${dirname(data)}`, ...(root ? ['--user=root'] : [])];
}

/** The command line of a durable server that only this machine can reach. */
export function serverArguments(settings: ServerSettings): string[] {
  const { kind, bufferPoolMegabytes } = settings;
  const redoMegabytes = Math.min(LARGEST_REDO_MB, Math.max(128, Math.floor(bufferPoolMegabytes / 2)));
  return [
    ...basicArguments(settings.data),
    `--port=${settings.port}`,
    `--socket=${settings.socket}`,
    `--pid-file=${settings.pidFile}`,
    ...(settings.initFile === undefined ? [] : [`--init-file=${settings.initFile}`]),
    '--bind-address=127.0.0.1',
    '--skip-name-resolve',

    // Durable: an answered commit survives a crash. The row binlog is what a replica or a restore
    // would need.
    '--innodb-flush-log-at-trx-commit=1',
    '--sync-binlog=1',
    '--server-id=1',
    '--log-bin=binlog',
    '--binlog-format=ROW',
    // Nobody reads the binlog of an embedded server, so it may not fill the disk: checked whenever
    // a file of it is full.
    '--binlog-expire-logs-seconds=600',
    '--max-binlog-size=64M',

    '--transaction-isolation=READ-COMMITTED',
    '--character-set-server=utf8mb4',
    '--default-time-zone=+00:00',
    '--max-connections=500',
    '--max-allowed-packet=64M',
    '--innodb-print-all-deadlocks=ON',
    `--innodb-buffer-pool-size=${bufferPoolMegabytes}M`,
    ...(kind === 'mysql'
      ? ['--mysqlx=OFF']
      : // MariaDB's default also logs each statement's text: two and a half times the size.
        ['--binlog-annotate-row-events=OFF']),
    redoLogArgument(kind, redoMegabytes),
  ];
}

/** The option for the size of the redo log. */
export function redoLogArgument(kind: ServerKind, megabytes: number): string {
  return kind === 'mysql' ? `--innodb-redo-log-capacity=${megabytes}M` : `--innodb-log-file-size=${megabytes}M`;
}

/** A quarter of the memory this process may use, between 128 MiB and 4 GiB. */
export function defaultBufferPoolMegabytes(memoryBytes = availableMemory()): number {
  return Math.min(4096, Math.max(128, Math.floor(memoryBytes / 4 / 1024 / 1024)));
}

/** The machine's memory, or the limit of the container. */
function availableMemory(): number {
  const limit = process.constrainedMemory();
  return limit > 0 && limit < totalmem() ? limit : totalmem();
}
