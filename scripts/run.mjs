// run.mjs ENTRY args…: installs and builds what is missing, then runs ENTRY with the arguments.
// ENTRY is a compiled program, such as tools/simulator/dist/main.js.
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { fail, prepare, root } from './prepare.mjs';

const [entry, ...args] = process.argv.slice(2);
if (!entry) fail('usage: node scripts/run.mjs ENTRY [arguments …]', 2);
await prepare();
const main = join(root, entry);
process.argv = [process.argv[0], main, ...args];
await import(pathToFileURL(main).href);
