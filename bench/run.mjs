// run.mjs NAME args…: prepares what is missing, then runs bench/NAME.ts with the arguments.
import { join } from 'node:path';
import { runnerImport } from 'vite';
import { fail, prepare, root } from '../scripts/prepare.mjs';

const [name, ...args] = process.argv.slice(2);
if (!name) fail('usage: node bench/run.mjs NAME [arguments …]', 2);
await prepare();
const entry = join(root, 'bench', `${name}.ts`);
const { module } = await runnerImport(entry, {
  root,
  configFile: false,
  logLevel: 'warn',
  resolve: { conditions: ['rowmq-source'] },
});
process.exitCode = await module.main(args);
