// run.mjs APP[/ENTRY] args…: prepares what is missing, then runs dist/apps/APP/src/ENTRY.js (main by default) with the arguments.
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { fail, prepare, root } from './prepare.mjs';

const [target, ...args] = process.argv.slice(2);
if (!target) fail('usage: node scripts/run.mjs APP[/ENTRY] [arguments …]', 2);
const [app, entry = 'main'] = target.split('/');
await prepare();
const main = join(root, 'dist', 'apps', app, 'src', `${entry}.js`);
process.argv = [process.argv[0], main, ...args];
await import(pathToFileURL(main).href);
