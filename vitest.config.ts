import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';
import { type ServerKind, findServer } from '@rowmq/mysql-server';

const root = fileURLToPath(new URL('.', import.meta.url));
/** The workspaces as they are written, not as they were built last. */
const conditions = ['rowmq-source'];
const shared = { resolve: { conditions }, ssr: { resolve: { conditions } } };

/** Every test under test/ runs once against each kind of server; a kind that cannot be had is left out, and said so. */
const kinds: ServerKind[] = [];
for (const kind of ['mysql', 'mariadb'] as const) {
  try {
    await findServer({
      kinds: [kind],
      dataDir: join(root, '.rowmq-test'),
      ...(process.env['ROWMQ_SERVERS_DIR'] ? { serversDir: process.env['ROWMQ_SERVERS_DIR'] } : {}),
      log: (line) => console.log(line),
    });
    kinds.push(kind);
  } catch (error) {
    if (process.env['CI'] === 'true') throw error;
    console.warn(`NOT TESTED: ${kind}. ${String(error)}`);
  }
}

export default defineConfig({
  test: {
    maxWorkers: 2,
    projects: [
      {
        ...shared,
        test: {
          name: 'unit',
          include: ['apps/**/*.test.ts', 'libs/**/*.test.ts', 'tools/**/*.test.ts', 'test/**/*.unit.test.ts'],
          testTimeout: 60_000,
          hookTimeout: 120_000,
        },
      },
      ...kinds.map((kind) => ({
        ...shared,
        test: {
          name: kind,
          include: ['test/**/*.test.ts'],
          // Group replication is MySQL's.
          exclude: ['test/**/*.unit.test.ts', ...(kind === 'mysql' ? [] : ['test/ha/**'])],
          globalSetup: [`test/support/${kind}-global-setup.ts`],
          testTimeout: 60_000,
          hookTimeout: 120_000,
        },
      })),
    ],
  },
});
