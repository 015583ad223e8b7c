import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';
import { type ServerKind, findServer } from '@rowmq/mysql-server';
import { findChromium } from './test/support/chromium.js';
import { LONGEST, NEED_CHROMIUM, RUN_ONCE } from './test/support/run-once.js';

const root = fileURLToPath(new URL('.', import.meta.url));
/** Tests read the sources of the workspaces, not the last build. */
const conditions = ['rowmq-source'];
const shared = { resolve: { conditions }, ssr: { resolve: { conditions } } };
/** vitest gives `expect.poll` one second, in which a busy machine may not run the test at all. */
const patience = { expect: { poll: { timeout: 40_000 } } };

// Nothing is installed here: scripts/test.mjs does that, and announces it first.
const kinds: ServerKind[] = [];
for (const kind of ['mysql', 'mariadb'] as const) {
  try {
    await findServer({
      kinds: [kind],
      dataDir: join(root, '.rowmq-test'),
      install: false,
      ...(process.env['ROWMQ_SERVERS_DIR'] ? { serversDir: process.env['ROWMQ_SERVERS_DIR'] } : {}),
    });
    kinds.push(kind);
  } catch {
    console.warn(`NOT TESTED: ${kind}. npm test unpacks a server of this kind.`);
  }
}
const hasChromium = findChromium() !== undefined;
if (!hasChromium) console.warn('NOT TESTED: web pages. npm test, run by root, installs Chromium.');

/** Tests wait for servers and leases half of the time. Two workers more than cores fill it. */
const WORKERS = Math.max(3, Math.min(availableParallelism() + 2, 6));

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    // oxlint-disable-next-line unicorn/no-array-sort -- the sequencer's method, not an array's
    const sorted = await super.sort(files);
    const rank = ({ moduleId }: TestSpecification): number => {
      const index = LONGEST.findIndex((path) => moduleId.endsWith(path));
      return index < 0 ? LONGEST.length : index;
    };
    // Files of one project stay together: its workers keep the modules that they have loaded.
    const projects = [...new Set(sorted.map(({ project }) => project))];
    return projects.flatMap((project) =>
      sorted.filter((file) => file.project === project).toSorted((a, b) => rank(a) - rank(b)),
    );
  }
}

export default defineConfig({
  test: {
    maxWorkers: WORKERS,
    sequence: { sequencer: LongestFirst },
    projects: [
      {
        ...shared,
        test: {
          ...patience,
          name: 'unit',
          include: ['apps/**/*.test.ts', 'libs/**/*.test.ts', 'tools/**/*.test.ts', 'test/**/*.unit.test.ts'],
          setupFiles: ['test/support/patient-waits.ts'],
          // Loading typeorm and Nest anew for each file took a third of the time.
          isolate: false,
          testTimeout: 180_000,
          hookTimeout: 240_000,
        },
      },
      ...kinds.map((kind, index) => ({
        ...shared,
        test: {
          ...patience,
          name: kind,
          include: ['test/**/*.test.ts'],
          exclude: [
            'test/**/*.unit.test.ts',
            // Group replication is MySQL's.
            ...(kind === 'mysql' ? [] : ['test/ha/**']),
            ...(index === 0 ? [] : RUN_ONCE),
            ...(hasChromium ? [] : NEED_CHROMIUM),
          ],
          provide: { kinds },
          globalSetup: [`test/support/${kind}-global-setup.ts`],
          isolate: false,
          testTimeout: 180_000,
          hookTimeout: 240_000,
        },
      })),
    ],
  },
});
