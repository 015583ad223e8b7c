// client.mjs NAME: runs bench/peers/clients/NAME.ts, the client of a peer. bench/peers/session.ts
// forks it.
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runnerImport } from 'vite';

const root = fileURLToPath(new URL('../..', import.meta.url));
const entry = join(root, 'bench', 'peers', 'clients', `${process.argv[2]}.ts`);
const { module } = await runnerImport(entry, {
  root,
  configFile: false,
  logLevel: 'warn',
  resolve: { conditions: ['rowmq-source'] },
});
module.main();
