import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { createConnection } from 'mysql2/promise';
import { migrateDatabase } from '@rowmq/store';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Broker, startBroker, startReaper } from '../support/processes.js';
import { createDatabase, testServer } from '../support/servers.js';
import { eventually } from '../support/wait.js';

const root = new URL('../../', import.meta.url);
const run = promisify(execFile);

let broker: Broker;

beforeAll(async () => {
  broker = await startBroker();
});
afterAll(async () => {
  await broker.stop();
  await broker.database.drop();
});

/** The shell commands of a page that talk to a broker, in the order in which a reader would type them. */
async function commands(page: string): Promise<string> {
  const text = await readFile(new URL(page, root), 'utf8');
  return [...text.matchAll(/```sh\n([\s\S]*?)```/g)]
    .map(([, block]) => block as string)
    .filter((block) => block.includes('curl'))
    .join('\n');
}

describe.each(['README.md', 'docs/protocol.md'])('the commands of %s', (page) => {
  it('work as they stand', async () => {
    const script = await commands(page);
    expect(script.match(/curl/g)?.length).toBeGreaterThan(3);
    const { stdout } = await run('bash', ['-euo', 'pipefail', '-c', script], {
      env: { ...process.env, ROWMQ: broker.url },
      cwd: fileURLToPath(root),
      timeout: 30_000,
    });
    expect(stdout).toContain('"acked":["');
    expect(stdout).toContain('"failed":[]');
  });
});

describe('docs/operations.md', () => {
  it('names the privileges that suffice', async () => {
    const text = await readFile(new URL('docs/operations.md', root), 'utf8');
    const privileges = /user needs `([A-Z, ]+)` on its own database/.exec(text)?.[1] as string;
    const database = await createDatabase();
    const admin = await createConnection({ uri: testServer().url });
    const user = `u_${database.name.slice(-12)}`;
    await admin.query(`CREATE USER '${user}'@'127.0.0.1' IDENTIFIED BY 'secret'`);
    await admin.query(`GRANT ${privileges} ON ${database.name}.* TO '${user}'@'127.0.0.1'`);
    const url = new URL(database.url);
    url.username = user;
    url.password = 'secret';
    const restricted = { ...database, url: url.href };
    await migrateDatabase(restricted.url);
    const own = await startBroker({ database: restricted });
    const reaper = await startReaper(restricted, { ROWMQ_REAPER_INTERVAL_SECONDS: '1' });
    try {
      const answer = await eventually('every duty has run', async () => {
        const response = await fetch(`${own.url}/v1/admin/reaper`);
        const { duties } = (await response.json()) as { duties: { duty: string; runs: { error: string | null }[] }[] };
        return duties.length >= 7 && duties;
      });
      expect(answer.flatMap(({ runs }) => runs.map(({ error }) => error)).filter((error) => error !== null)).toEqual(
        [],
      );
    } finally {
      await reaper.stop();
      await own.stop();
      await admin.query(`DROP USER '${user}'@'127.0.0.1'`);
      await admin.end();
      await database.drop();
    }
  });

  it('lists every setting that there is', async () => {
    const { KNOWN_SETTINGS } = await import('@rowmq/runtime');
    const text = await readFile(new URL('docs/operations.md', root), 'utf8');
    expect(KNOWN_SETTINGS.filter((setting) => !text.includes(`\`${setting}\``))).toEqual([]);
    const named = new Set([...text.matchAll(/`(ROWMQ_[A-Z_]+)`/g)].map(([, name]) => name as string));
    expect([...named].filter((name) => !(KNOWN_SETTINGS as readonly string[]).includes(name))).toEqual([]);
  });
});
