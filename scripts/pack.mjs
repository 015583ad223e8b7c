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
  const contents = await manifest();
  await pointAtContract(dist);
  await removeUnreachable(dist, contents.exports);
  await writeFile(join(stage, 'package.json'), `${JSON.stringify(contents, undefined, 2)}\n`);
  await copyFile(join(root, library, 'README.md'), join(stage, 'README.md'));
  const options = { cwd: stage, encoding: 'utf8' };
  const packed = execFileSync('npm', ['pack', '--silent', '--pack-destination', folder], options);
  console.log(join(folder, packed.trim()));
} finally {
  await rm(stage, { recursive: true, force: true });
}

/** Imports of the contract become relative: it is in the package, and no package of its own. */
async function pointAtContract(dist) {
  const files = await filesIn(dist);
  const contract = files.find((file) => file.endsWith(join('contract', 'src', 'index.js')));
  for (const file of files) {
    const text = await readFile(file, 'utf8');
    if (!text.includes(CONTRACT)) continue;
    const path = relative(dirname(file), contract);
    await writeFile(file, text.replaceAll(`'${CONTRACT}'`, `'${path}'`).replaceAll(`"${CONTRACT}"`, `"${path}"`));
  }
}

/** What no entry imports was compiled for its types alone. */
async function removeUnreachable(dist, entries) {
  const reachable = new Set();
  const open = Object.values(entries)
    .flatMap((entry) => (typeof entry === 'string' ? [] : Object.values(entry)))
    .map((path) => join(dirname(dist), path));
  for (let file = open.pop(); file !== undefined; file = open.pop()) {
    if (reachable.has(file)) continue;
    reachable.add(file);
    const text = await readFile(file, 'utf8');
    for (const [, path] of text.matchAll(/(?:from|import)\s*\(?\s*['"](\.[^'"]+)['"]/g)) {
      const imported = join(dirname(file), path);
      open.push(file.endsWith('.d.ts') ? imported.replace(/\.js$/, '.d.ts') : imported);
    }
  }
  for (const file of await filesIn(dist)) if (!reachable.has(file)) await rm(file);
}

async function filesIn(path) {
  const entries = await readdir(path, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map(({ parentPath, name: file }) => join(parentPath, file));
}

/** The library's package.json with the project's version, and the versions of dependencies that the project is tested with. */
async function manifest() {
  const project = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'));
  const own = JSON.parse(await readFile(join(root, library, 'package.json'), 'utf8'));
  const tested = { ...project.devDependencies, ...project.dependencies };
  const dependencies = Object.fromEntries(Object.keys(own.dependencies).map((of) => [of, `^${tested[of]}`]));
  return { ...own, version: project.version, dependencies };
}
