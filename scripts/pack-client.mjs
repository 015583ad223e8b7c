// npm run pack:client [-- FOLDER]: makes the tarball that other services install: libs/client with what it uses of libs/contract inside. Prints its path.
import { execFileSync } from 'node:child_process';
import { copyFile, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { prepare, root, step } from './prepare.mjs';

const CONTRACT = '@rowmq/contract';

const caller = process.env.INIT_CWD ?? process.cwd();
const folder = resolve(caller, process.argv[2] ?? '.');
await prepare();
const stage = await mkdtemp(join(tmpdir(), 'rowmq-client-'));
try {
  const dist = join(stage, 'dist');
  await step('npx', ['tsc', '-p', join('libs', 'client', 'tsconfig.json'), '--outDir', dist]);
  await pointAtContract(dist);
  await writeFile(join(stage, 'package.json'), `${JSON.stringify(await manifest(), undefined, 2)}\n`);
  await copyFile(join(root, 'libs/client/README.md'), join(stage, 'README.md'));
  const options = { cwd: stage, encoding: 'utf8' };
  const packed = execFileSync('npm', ['pack', '--silent', '--pack-destination', folder], options);
  console.log(join(folder, packed.trim()));
} finally {
  await rm(stage, { recursive: true, force: true });
}

/** Imports of the contract become relative: it is in the package, and no package of its own. */
async function pointAtContract(dist) {
  const contract = join(dist, 'contract', 'src', 'index.js');
  for (const entry of await readdir(dist, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const file = join(entry.parentPath, entry.name);
    const text = await readFile(file, 'utf8');
    if (!text.includes(CONTRACT)) continue;
    const path = relative(dirname(file), contract);
    await writeFile(file, text.replaceAll(`'${CONTRACT}'`, `'${path}'`).replaceAll(`"${CONTRACT}"`, `"${path}"`));
  }
}

/** libs/client/package.json with the project's version, and the versions of dependencies that the project is tested with. */
async function manifest() {
  const project = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'));
  const own = JSON.parse(await readFile(join(root, 'libs/client/package.json'), 'utf8'));
  const tested = { ...project.devDependencies, ...project.dependencies };
  const dependencies = Object.fromEntries(Object.keys(own.dependencies).map((name) => [name, `^${tested[name]}`]));
  return { ...own, version: project.version, dependencies };
}
