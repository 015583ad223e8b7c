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
    const applied = await migrateDatabase(databaseUrl());
    console.log(applied.length === 0 ? 'Nothing to do: no migration is pending.' : `Applied: ${applied.join(', ')}`);
  });

program
  .command('down')
  .description('revert the last migrations; this drops tables and what is in them')
  .argument('[steps]', 'how many', positiveInteger, 1)
  .action(async (steps: number) => {
    const reverted = await revertDatabase(databaseUrl(), steps);
    console.log(
      reverted.length === 0 ? 'Nothing to do: no migration was applied.' : `Reverted: ${reverted.join(', ')}`,
    );
  });

program
  .command('status')
  .description('list the pending migrations; exit code 1 if there are any')
  .action(async () => {
    const pending = await pendingMigrations(databaseUrl());
    console.log(pending.length === 0 ? 'Up to date.' : `Pending: ${pending.join(', ')}`);
    process.exitCode = pending.length === 0 ? 0 : 1;
  });

try {
  await program.parseAsync();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}

function databaseUrl(): string {
  const url = process.env['ROWMQ_DATABASE_URL'];
  if (url) return url;
  throw new Error('Set ROWMQ_DATABASE_URL=mysql://user:password@host:3306/database first.');
}

function positiveInteger(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1) throw new InvalidArgumentError('must be a whole number from 1.');
  return value;
}
