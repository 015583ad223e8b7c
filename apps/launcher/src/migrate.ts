import { DATABASE_SETTINGS, type DatabaseTls, databaseTls, readSettings, reason } from '@rowmq/runtime';
import { migrateDatabase, pendingMigrations, revertDatabase } from '@rowmq/store';
import { Command, InvalidArgumentError } from 'commander';

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
  .description('revert the last migrations; this drops tables and what is in them')
  .argument('[steps]', 'how many', positiveInteger, 1)
  .action(async (steps: number) => {
    const { url, tls } = database();
    const reverted = await revertDatabase(url, steps, tls);
    console.log(
      reverted.length === 0 ? 'Nothing to do: no migration was applied.' : `Reverted: ${reverted.join(', ')}`,
    );
  });

program
  .command('status')
  .description('list the pending migrations; exit code 1 if there are any')
  .action(async () => {
    const { url, tls } = database();
    const pending = await pendingMigrations(url, tls);
    console.log(pending.length === 0 ? 'Up to date.' : `Pending: ${pending.join(', ')}`);
    process.exitCode = pending.length === 0 ? 0 : 1;
  });

try {
  await program.parseAsync();
} catch (error) {
  console.error(reason(error));
  process.exitCode = 1;
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
