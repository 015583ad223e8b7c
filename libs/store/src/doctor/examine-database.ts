import { reason } from '@rowmq/runtime';
import type { DataSource } from 'typeorm';
import { checkServer, describeServer, refuseMissingGrants, StartupError } from '../database/boot-checks.js';
import { NOW_MS } from '../database/clock.js';
import { openDataSource } from '../database/data-source.js';
import { Database } from '../database/database.js';
import { isDenied } from '../database/database-errors.js';
import { pendingOf, refuseNewerSchema } from '../database/migrate.js';
import { NoPrimaryError } from '../database/primary.js';
import { SESSION_AS_SET, SESSION_FACTS } from '../database/session-setup.js';
import { PartitionRepository } from '../partitions/partition.repository.js';
import { ReaperRepository } from '../partitions/reaper.repository.js';
import { PEER_SILENCE_MS, PeerRepository } from '../peers/peer.repository.js';
import type { DoctorConfig } from './doctor.config.js';
import type { Finding } from './finding.js';

type Verdict = Omit<Finding, 'check'>;
type Check = (database: Database, config: DoctorConfig) => Promise<Verdict | Verdict[]>;

const ok = (text: string): Verdict => ({ state: 'ok', text });
const warning = (text: string): Verdict => ({ state: 'warning', text });
const fault = (text: string): Verdict => ({ state: 'fault', text });

/** The checks that need no table of RowMQ. */
const OF_SERVER: readonly (readonly [name: string, check: Check])[] = [
  ['server settings', serverSettings],
  ['session', session],
  ['binlog', binlog],
  ['clock', clock],
  ['long transactions', longTransactions],
];
const OF_TABLES: readonly (readonly [name: string, check: Check])[] = [
  ['privileges', privileges],
  ['partitions', partitions],
  ['reaper', reaper],
  ['brokers', brokers],
  ['connections', connections],
];

/** Yields a finding for each check, as soon as it is known. Each check may fail by itself. */
export async function* examineDatabase(config: DoctorConfig): AsyncGenerator<Finding> {
  let dataSource: DataSource;
  try {
    dataSource = await openDataSource(config.database);
  } catch (error) {
    const cause = error instanceof StartupError ? error.cause : error;
    yield { check: cause instanceof NoPrimaryError ? 'one primary' : 'connection', ...fault(reason(error)) };
    return;
  }
  try {
    const database = new Database(dataSource);
    yield { check: 'connection', ...ok(await describeServer(dataSource)) };
    yield { check: 'one primary', ...ok('One server takes writes.') };
    yield* run(OF_SERVER, database, config);
    const schema = await attempt(migrations, database, config);
    for (const verdict of schema) yield { check: 'migrations', ...verdict };
    if (schema.every(({ state }) => state === 'ok')) yield* run(OF_TABLES, database, config);
  } finally {
    await dataSource.destroy();
  }
}

async function* run(
  checks: readonly (readonly [name: string, check: Check])[],
  database: Database,
  config: DoctorConfig,
): AsyncGenerator<Finding> {
  for (const [name, check] of checks)
    for (const verdict of await attempt(check, database, config)) yield { check: name, ...verdict };
}

async function attempt(check: Check, database: Database, config: DoctorConfig): Promise<Verdict[]> {
  try {
    return [await check(database, config)].flat();
  } catch (error) {
    if (error instanceof StartupError) return [fault(error.message)];
    if (isDenied(error)) return [{ state: 'unknown', text: `The user may not see this: ${reason(error)}.` }];
    return [fault(reason(error))];
  }
}

/** The same checks as at the start of a broker. */
async function serverSettings({ dataSource }: Database): Promise<Verdict[]> {
  const warnings = await checkServer(dataSource);
  return warnings.length > 0
    ? warnings.map(warning)
    : [ok('Version, durability and packet size are as RowMQ needs them.')];
}

async function session({ dataSource }: Database): Promise<Verdict> {
  const [row] = await dataSource.query<{ facts: string }[]>(`SELECT ${SESSION_FACTS} AS facts`);
  if (row?.facts === SESSION_AS_SET) return ok('READ COMMITTED, autocommit, UTC.');
  return fault(
    `A session has ${row?.facts} in place of ${SESSION_AS_SET}. If a proxy stands between, let it keep each client on a connection of its own.`,
  );
}

async function variables({ dataSource }: Database, names: readonly string[]): Promise<Map<string, string>> {
  const rows = await dataSource.query<{ Variable_name: string; Value: string }[]>(
    'SHOW GLOBAL VARIABLES WHERE Variable_name IN (?)',
    [names],
  );
  return new Map(rows.map(({ Variable_name: name, Value: value }) => [name.toLowerCase(), value]));
}

async function binlog(database: Database): Promise<Verdict> {
  const found = await variables(database, ['log_bin', 'binlog_format', 'binlog_row_image']);
  if (found.get('log_bin') !== 'ON')
    return warning(
      'The server writes no binlog, so it has no replica, and a backup cannot be brought up to now. Set log_bin, unless messages may be lost with the server.',
    );
  const [format, image] = [found.get('binlog_format'), found.get('binlog_row_image')];
  if (format === 'MIXED') return warning('binlog_format is MIXED. RowMQ is tested with ROW; set binlog_format=ROW.');
  const smaller = image === 'FULL' ? ' binlog_row_image=MINIMAL would write about a fifth less.' : '';
  return ok(`Format ${format}, row image ${image}.${smaller}`);
}

/** A difference that network time keeps up with easily. */
const CLOCK_MS = 1000;

async function clock({ dataSource }: Database): Promise<Verdict> {
  const before = Date.now();
  const [row] = await dataSource.query<{ now: string }[]>(`SELECT ${NOW_MS} AS now`);
  const apart = Math.round(Number(row?.now) - (before + Date.now()) / 2);
  if (Math.abs(apart) <= CLOCK_MS)
    return ok(`The database's clock and this machine's are ${Math.abs(apart)} ms apart.`);
  return warning(
    `The database's clock is ${Math.abs(apart)} ms ${apart > 0 ? 'ahead of' : 'behind'} this machine's. Leases go by the database's clock, message ids by the brokers'. Synchronize both with NTP.`,
  );
}

/** INNODB_TRX has times of the server's own zone, whatever the session's is. */
async function longTransactions({ dataSource }: Database, { longSeconds }: DoctorConfig): Promise<Verdict> {
  const rows = await dataSource.query<{ thread: string; seconds: string }[]>(
    `SELECT trx_mysql_thread_id AS thread,
            TIMESTAMPDIFF(SECOND, trx_started, CONVERT_TZ(UTC_TIMESTAMP(), '+00:00', 'SYSTEM')) AS seconds
     FROM information_schema.INNODB_TRX
     HAVING thread <> CONNECTION_ID() AND seconds >= ?
     ORDER BY seconds DESC
     LIMIT 5`,
    [longSeconds],
  );
  if (rows.length === 0) return ok(`No transaction is open for ${longSeconds} s.`);
  const named = rows.map(({ thread, seconds }) => `connection ${thread} for ${seconds} s`).join(', ');
  return warning(
    `Transactions are open: ${named}. InnoDB keeps old row versions for them, which slows claims down. Let the application end them, or KILL the connection.`,
  );
}

/** The same checks as at the start of a broker. */
async function migrations({ dataSource }: Database): Promise<Verdict> {
  const pending = await pendingOf(dataSource);
  if (pending.length > 0) return fault(`Pending: ${pending.join(', ')}. Run npm run migrate with this version.`);
  const newer = await refuseNewerSchema(dataSource);
  return ok(newer.length === 0 ? 'None is pending.' : `None is pending. A later version added ${newer.join(', ')}.`);
}

/** The same check as at the start of a broker. */
async function privileges({ dataSource }: Database): Promise<Verdict> {
  await refuseMissingGrants(dataSource);
  return ok('The user may read and write every table.');
}

/** Without a partition for now, all packs go to the catch-all, whose split costs writers time. */
const AHEAD_MS = 15 * 60_000;

async function partitions(database: Database): Promise<Verdict> {
  const all = await new PartitionRepository(database).list();
  const until = all.at(-2)?.until ?? 0;
  const [row] = await database.dataSource.query<{ now: string }[]>(`SELECT ${NOW_MS} AS now`);
  const aheadMs = until - Number(row?.now);
  const minutes = Math.round(Math.abs(aheadMs) / 60_000);
  if (aheadMs > AHEAD_MS) return ok(`${all.length} partitions, the last one ends ${minutes} min from now.`);
  const advice = 'The reaper creates them: see whether one runs, and what its log says.';
  if (until === 0) return warning(`The table pack has only its first partition. ${advice}`);
  return aheadMs > 0
    ? warning(`The last partition ends in ${minutes} min. ${advice}`)
    : fault(`The last partition ended ${minutes} min ago, and its successor grows without bound. ${advice}`);
}

/** The alert on a silent duty waits as long. */
const SILENT_MS = 15 * 60_000;

async function reaper(database: Database): Promise<Verdict[]> {
  const repository = new ReaperRepository(database);
  const leader = await repository.leader();
  if (leader === null)
    return [
      fault(
        'No reaper works: messages do not expire in time, schedules stand still, and disk does not come back. Start one.',
      ),
    ];
  const silent = (await repository.dutyStates()).filter(({ lastSuccessAgeMs }) => lastSuccessAgeMs > SILENT_MS);
  if (silent.length === 0) return [ok(`${leader.holder} works, and all its duties succeed.`)];
  return silent.map(({ duty, lastSuccessAgeMs }) =>
    warning(`The duty ${duty} last succeeded ${Math.round(lastSuccessAgeMs / 60_000)} min ago. See the reaper's log.`),
  );
}

async function brokers(database: Database): Promise<Verdict> {
  const live = await new PeerRepository(database).live();
  if (live.length === 0) return warning(`No broker reported in the last ${PEER_SILENCE_MS / 1000} s. Start one.`);
  return ok(`${live.length} broker processes are live: ${live.map(({ url }) => url).join(', ')}.`);
}

/** Room for administrators, backups and metrics. */
const SPARE_CONNECTIONS = 10;
const REAPER_CONNECTIONS = 4;

async function connections(database: Database, { poolSize }: DoctorConfig): Promise<Verdict> {
  const most = Number((await variables(database, ['max_connections'])).get('max_connections'));
  const [used] = await database.dataSource.query<{ Value: string }[]>(`SHOW GLOBAL STATUS LIKE 'Max_used_connections'`);
  const live = (await new PeerRepository(database).live()).length;
  const wanted = live * poolSize + REAPER_CONNECTIONS + SPARE_CONNECTIONS;
  const facts = `${live} broker processes with up to ${poolSize} connections and a reaper want ${wanted} with some to spare; max_connections is ${most}, and at most ${used?.Value} were used.`;
  if (wanted > most) return warning(`${facts} Raise max_connections, or lower ROWMQ_DATABASE_POOL_SIZE.`);
  if (Number(used?.Value) > most * 0.9) return warning(`${facts} Others use nearly all: raise max_connections.`);
  return ok(facts);
}
