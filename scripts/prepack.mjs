// prepack.mjs: npm runs it in a public package's folder before it packs or publishes that package.
// It builds the package, removes outputs whose source is gone, and copies the licence beside them.
import { copyFile, readdir, rm } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { root, step } from './prepare.mjs';

const folder = process.cwd();
await step('npx', ['tsc', '-b', folder]);
for (const file of await readdir(join(folder, 'dist'), { recursive: true })) {
  const source = file.replace(/(\.d\.ts|\.js|\.js\.map)$/, '.ts');
  // tsc never removes the outputs of a file that was renamed or deleted.
  if (source !== file && !existsSync(join(folder, 'src', source))) await rm(join(folder, 'dist', file));
}
await copyFile(join(root, 'LICENSE'), join(folder, 'LICENSE'));
