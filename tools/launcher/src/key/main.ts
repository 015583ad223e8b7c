import { hostname } from 'node:os';
import { parseArgs } from 'node:util';
import { createKeyRequest, readRequest } from '@rowmq/contract';
import { DATABASE_SETTINGS, databaseTls, readSettings, reason } from '@rowmq/runtime';
import { ApiKeyRepository, AuditRepository, Database, openDataSource } from '@rowmq/store';
import { z } from 'zod';

const HELP = `Usage: npm run key:create -- <name> --scope <scope> [options]

Creates an API key in the database at ROWMQ_DATABASE_URL, and prints its secret, which nobody can
show again. The database must be migrated. No broker needs to run.

Options:
  --scope <scope>        enqueue, dequeue, read, admin or metrics; several times for several
  --pattern <pattern>    a queue or topic that the key reaches, or the beginning of names and *;
                         several times for several (default: every queue and topic)
  --expires-at <time>    when the key ends, such as 2027-11-22T00:00:00Z (default: never)
  -h, --help             print this text

Example, for the first administrator:
  npm run --silent key:create -- platform --scope admin
`;

try {
  await run();
} catch (error) {
  console.error(reason(error));
  process.exitCode = 1;
}

async function run(): Promise<void> {
  const { values, positionals } = parseArgs({
    options: {
      scope: { type: 'string', multiple: true },
      pattern: { type: 'string', multiple: true },
      'expires-at': { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
    allowPositionals: true,
  });
  if (values.help) {
    console.log(HELP);
    return;
  }
  const [name, ...more] = positionals;
  if (name === undefined || more.length > 0) throw new Error(`Give one name.\n\n${HELP}`);
  const definition = readRequest(createKeyRequest, {
    name,
    scopes: values.scope ?? [],
    patterns: values.pattern ?? [],
    expiresAt: values['expires-at'],
  });
  const settings = readSettings({ ...DATABASE_SETTINGS, ROWMQ_SQS_SECRET_KEY: z.string().optional() }, process.env);
  const dataSource = await openDataSource({
    url: settings.ROWMQ_DATABASE_URL,
    tls: databaseTls(settings),
    untestedAllowed: settings.ROWMQ_DATABASE_UNTESTED === 'allow',
    poolSize: 1,
  });
  try {
    const database = new Database(dataSource);
    const { secret } = await new ApiKeyRepository(database).create(definition, settings.ROWMQ_SQS_SECRET_KEY);
    // Before the audit, which may fail: nobody can show it again.
    console.log(secret);
    await new AuditRepository(database).add([
      {
        action: 'createKey',
        path: 'npm run key:create',
        status: 201,
        problem: null,
        key: null,
        address: hostname().slice(0, 64),
        requestId: 'command-line',
        changes: JSON.stringify(
          Object.fromEntries(Object.entries(definition).map(([field, value]) => [field, { to: value }])),
        ),
      },
    ]);
  } finally {
    await dataSource.destroy();
  }
}
