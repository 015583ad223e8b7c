import { DATABASE_SETTINGS, type DatabaseTls, databaseTls, readSettings, reason } from '@rowmq/runtime';
import { migrateDatabase, pendingMigrations, revertDatabase } from '@rowmq/store';
import { Command, InvalidArgumentError } from 'commander';

/** Not 2, which Docker reserves for the health checks of containers. */
const CANNOT_TELL = 3;

const program = new Command('npm run migrate --')
  .description(
    'Changes the schema of the database at ROWMQ_DATABASE_URL. npm start does this by itself for its embedded server.',
  )
  .showHelpAfterError();

program
  .command('up', { isDefault: true })
  .description('apply every pending migration')
  .action(async () => {
    const { url, tls } = database();
    const applied = await migrateDatabase(url, tls);
    console.log(applied.length === 0 ? 'Nothing to do: no migration is pending.' : `Applied: ${applied.join(', ')}`);
  });

program
  .command('down')
  .description('revert the last migrations; the first one drops every table and what is in it')
  .argument('[steps]', 'how many', positiveInteger, 1)
  .option('--yes', 'needed, since there is no way back')
  .action(async (steps: number, { yes }: { yes?: boolean }) => {
    if (yes !== true) {
      throw new Error(
        'Reverting changes tables back, and the first migration drops them all with every message in them. Stop all brokers and reapers, back up, and say it again with --yes.',
      );
    }
    const { url, tls } = database();
    const reverted = await revertDatabase(url, steps, tls);
    console.log(
      reverted.length === 0 ? 'Nothing to do: no migration was applied.' : `Reverted: ${reverted.join(', ')}`,
    );
  });

program
  .command('status')
  .description('list the pending migrations; exit code 0: none, 1: there are some, 3: the database cannot be asked')
  .action(async () => {
    process.exitCode = CANNOT_TELL;
    const { url, tls } = database();
    const pending = await pendingMigrations(url, tls);
    console.log(pending.length === 0 ? 'Up to date.' : `Pending: ${pending.join(', ')}`);
    process.exitCode = pending.length === 0 ? 0 : 1;
  });

try {
  await program.parseAsync();
} catch (error) {
  console.error(reason(error));
  process.exitCode ??= 1;
}

function database(): { url: string; tls: DatabaseTls | undefined } {
  const settings = readSettings(DATABASE_SETTINGS, process.env);
  return { url: settings.ROWMQ_DATABASE_URL, tls: databaseTls(settings) };
}

function positiveInteger(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1) throw new InvalidArgumentError('must be a whole number from 1.');
  return value;
}
