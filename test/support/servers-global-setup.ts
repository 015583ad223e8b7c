import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { TestProject } from 'vitest/node';
import {
  EmbeddedServer,
  type ServerKind,
  findProcessesByArgument,
  findServer,
  identifyProcess,
  terminateProcess,
} from '@rowmq/mysql-server';
import { bundleApps } from './bundled-apps.js';
import { copyFreshData } from './fresh-data.js';

const dataDir = fileURLToPath(new URL('../../.rowmq-test', import.meta.url));

/**
 * Starts a real, small server of this kind on a folder of its own and provides it to the tests,
 * which start bundled apps. Returns the function that stops it and removes the folder. After a
 * failed test the folder stays, so that its data can be read.
 */
export async function startTestServer(kind: ServerKind, project: TestProject): Promise<() => Promise<void>> {
  const serversDir = process.env['ROWMQ_SERVERS_DIR'];
  const program = await findServer({ kinds: [kind], dataDir, install: false, ...(serversDir ? { serversDir } : {}) });
  await endLeftOver(dataDir, kind);
  process.env['TEST_BUNDLED_APPS'] = await bundleApps();
  const folder = join(dataDir, `${kind}-${process.pid}`);
  await copyFreshData(program, folder);
  const server = await EmbeddedServer.start({ program, dataDir: folder, bufferPoolMegabytes: 512 });
  // SIGINT ends vitest without its teardown. A server left over would then run for ever, because no
  // later run uses its folder.
  const killServer = () => void server.kill();
  process.once('exit', killServer);
  project.provide('server', { kind, version: program.version, url: server.url });
  return async () => {
    process.off('exit', killServer);
    await server.stop();
    const failed = project.vitest.state.getCountOfFailedTests() > 0;
    if (failed) console.log(`The data of the ${kind} tests is kept in ${folder}`);
    else await rm(folder, { recursive: true, force: true });
  };
}

/**
 * Ends servers on folders `<parent>/<name>-<process id>` of killed test runs. Nothing else would,
 * because no later run uses these folders. Returns the folders.
 */
export async function endLeftOver(parent: string, name: string): Promise<string[]> {
  const found = (await readdir(parent).catch(() => [])).filter(
    (folder) => folder.startsWith(`${name}-`) && /^\d+$/.test(folder.slice(name.length + 1)),
  );
  const leftOver: string[] = [];
  for (const folder of found) {
    if ((await identifyProcess(Number(folder.slice(name.length + 1)))) !== undefined) continue;
    leftOver.push(join(parent, folder));
    for (const kind of ['mysql', 'mariadb']) {
      for (const server of await findProcessesByArgument(`--datadir=${join(parent, folder, kind, 'data')}`)) {
        await terminateProcess(server, 30_000);
      }
    }
  }
  return leftOver;
}
