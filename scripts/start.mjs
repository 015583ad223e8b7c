// npm start: installs and builds what is missing, then becomes the launcher. One process for both,
// so that a signal has one receiver.
import { pathToFileURL } from 'node:url';
import { join } from 'node:path';
import { prepare, root } from './prepare.mjs';

await prepare();
await import(pathToFileURL(join(root, 'tools/launcher/dist/main.js')).href);
