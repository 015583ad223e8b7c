// pack.mjs LIBRARY [FOLDER]: makes the tarball of a library that other services install, with what it uses of libs/contract inside. Prints its path.
import { execFileSync } from 'node:child_process';
import { copyFile, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { fail, prepare, root, step } from './prepare.mjs';

const CONTRACT = '@rowmq/contract';

const caller = process.env.INIT_CWD ?? process.cwd();
const [name, to = '.'] = process.argv.slice(2);
if (name !== 'client' && name !== 'store') fail('usage: node scripts/pack.mjs client|store [FOLDER]', 2);
const library = join('libs', name);
const folder = resolve(caller, to);
await prepare();
const stage = await mkdtemp(join(tmpdir(), `rowmq-${name}-`));
try {
  const dist = join(stage, 'dist');
  await step('npx', ['tsc', '-p', join(library, 'tsconfig.json'), '--outDir', dist]);
  await pointAtContract(dist);
  await writeFile(join(stage, 'package.json'), `${JSON.stringify(await manifest(), undefined, 2)}\n`);
  await copyFile(join(root, library, 'README.md'), join(stage, 'README.md'));
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

/** The library's package.json with the project's version, and the versions of dependencies that the project is tested with. */
async function manifest() {
  const project = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'));
  const own = JSON.parse(await readFile(join(root, library, 'package.json'), 'utf8'));
  const tested = { ...project.devDependencies, ...project.dependencies };
  const dependencies = Object.fromEntries(Object.keys(own.dependencies).map((of) => [of, `^${tested[of]}`]));
  return { ...own, version: project.version, dependencies };
}
