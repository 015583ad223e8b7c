// run.mjs NAME args…: prepares what is missing, then runs bench/NAME.ts with the arguments.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { runnerImport } from 'vite';
import { fail, prepare, root } from '../scripts/prepare.mjs';

const [name, ...args] = process.argv.slice(2);
if (!name) fail('usage: node bench/run.mjs NAME [arguments …]', 2);
await prepare();
const { paths } = JSON.parse(readFileSync(join(root, 'tsconfig.json'), 'utf8')).compilerOptions;
const alias = Object.fromEntries(Object.entries(paths).map(([library, [source]]) => [library, join(root, source)]));
const entry = join(root, 'bench', `${name}.ts`);
process.argv = [process.argv[0], entry, ...args];
const { module } = await runnerImport(entry, { root, configFile: false, logLevel: 'warn', resolve: { alias } });
await module.main();
