import { createConnection } from 'mysql2/promise';
import { digestOf } from '@rowmq/store';
import { expect, it } from 'vitest';
import { runEntry } from '../support/commands.js';
import { createMigratedDatabase } from '../support/processes.js';

it('key:create prints the secret of a key that exists, also if the audit cannot be written', async () => {
  const database = await createMigratedDatabase();
  const connection = await createConnection(database.url);
  try {
    await connection.query('RENAME TABLE audit TO away');
    const env = { ROWMQ_DATABASE_URL: database.url };
    const { code, stdout, stderr } = await runEntry('key', env, ['first', '--scope', 'admin']);
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining('audit') });
    const [rows] = await connection.query("SELECT secret_digest AS digest FROM api_key WHERE name = 'first'");
    expect(rows).toEqual([{ digest: digestOf(stdout.trim()).toString() }]);
  } finally {
    await connection.end();
    await database.drop();
  }
}, 120_000);
