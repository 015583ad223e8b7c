// run.mjs ENTRY args…: prepares what is missing, then runs dist/ENTRY.js, such as dist/apps/simulator/src/main.js, with the arguments.
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { fail, prepare, root } from './prepare.mjs';

const [entry, ...args] = process.argv.slice(2);
if (!entry) fail('usage: node scripts/run.mjs ENTRY [arguments …]', 2);
await prepare();
const main = join(root, 'dist', `${entry}.js`);
process.argv = [process.argv[0], main, ...args];
await import(pathToFileURL(main).href);
