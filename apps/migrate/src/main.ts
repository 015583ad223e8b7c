import { parseArgs } from 'node:util';
import { DATABASE_SETTINGS, type DatabaseTls, databaseTls, readSettings, reason } from '@rowmq/runtime';
import { migrateDatabase, pendingMigrations, revertDatabase } from '@rowmq/store';

/** Not 2: Docker reserves that for the health checks of containers. */
const CANNOT_TELL = 3;

const HELP = `Usage: npm run migrate -- [command]

Changes the schema of the database at ROWMQ_DATABASE_URL. npm start does this by itself for its
embedded server.

Commands:
  up                    say what each pending migration blocks, then apply it (default)
  down [steps] --yes    revert the last migrations (default: one); the first migration drops every
                        table with every message in it
  status                list the pending migrations; exit code 0: none, 1: some, 3: the database
                        did not answer

Options:
  -h, --help            print this text
`;

class UsageError extends Error {}

try {
  await run();
} catch (error) {
  console.error(error instanceof UsageError ? `error: ${error.message}\n\n${HELP}` : reason(error));
  process.exitCode ??= 1;
}

async function run(): Promise<void> {
  const { command, rest, yes, help } = commandLine();
  if (help || command === 'help') {
    console.log(HELP);
  } else if (command === 'down') {
    await down(steps(rest), yes);
  } else if (rest.length > 0 || yes) {
    throw new UsageError(`${command} takes no ${yes ? 'option --yes' : `argument: ${rest.join(' ')}`}`);
  } else if (command === 'up') {
    await up();
  } else if (command === 'status') {
    await status();
  } else {
    throw new UsageError(`unknown command '${command}'`);
  }
}

async function up(): Promise<void> {
  const { url, tls, untestedAllowed } = database();
  const applied = await migrateDatabase(url, tls, { untestedAllowed, announce: (line) => console.log(line) });
  console.log(applied.length === 0 ? 'Nothing to do: no migration is pending.' : `Applied: ${applied.join(', ')}`);
}

async function down(count: number, isConfirmed: boolean): Promise<void> {
  if (!isConfirmed) {
    throw new Error(
      'Reverting changes tables back, and the first migration drops all of them with every message. Stop all brokers and reapers, make a backup, and repeat the command with --yes.',
    );
  }
  const { url, tls, untestedAllowed } = database();
  const reverted = await revertDatabase(url, count, tls, { untestedAllowed });
  console.log(reverted.length === 0 ? 'Nothing to do: no migration was applied.' : `Reverted: ${reverted.join(', ')}`);
}

async function status(): Promise<void> {
  process.exitCode = CANNOT_TELL;
  const { url, tls } = database();
  const pending = await pendingMigrations(url, tls);
  console.log(pending.length === 0 ? 'Up to date.' : `Pending: ${pending.join(', ')}`);
  process.exitCode = pending.length === 0 ? 0 : 1;
}

function commandLine(): { command: string; rest: string[]; yes: boolean; help: boolean } {
  try {
    const { values, positionals } = parseArgs({
      options: { yes: { type: 'boolean', default: false }, help: { type: 'boolean', short: 'h', default: false } },
      allowPositionals: true,
    });
    const [command = 'up', ...rest] = positionals;
    return { command, rest, ...values };
  } catch (error) {
    throw new UsageError(reason(error));
  }
}

function steps([text = '1', ...more]: readonly string[]): number {
  const count = Number(text);
  if (!Number.isSafeInteger(count) || count < 1) throw new UsageError('steps must be a whole number from 1');
  if (more.length > 0) throw new UsageError(`down takes one argument, not also: ${more.join(' ')}`);
  return count;
}

function database(): { url: string; tls: DatabaseTls | undefined; untestedAllowed: boolean } {
  const settings = readSettings(DATABASE_SETTINGS, process.env);
  return {
    url: settings.ROWMQ_DATABASE_URL,
    tls: databaseTls(settings),
    untestedAllowed: settings.ROWMQ_DATABASE_UNTESTED === 'allow',
  };
}
