import { cp, mkdir, mkdtemp, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Plugin, rolldown } from 'rolldown';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const FOLDER = join(ROOT, '.rowmq-test', 'apps');
const APPS = ['broker', 'reaper'] as const;
/** The compiled files that an app consists of, and its packages. */
const SOURCES = [
  'apps/broker/dist',
  'apps/reaper/dist',
  'apps/cli/dist',
  'libs',
  'migrations/dist',
  'tools/load/dist',
  'node_modules/.package-lock.json',
];

/**
 * Joins the files of each compiled app and of its packages into one, unless that was done since the
 * last build. Returns the folder, which has the shape of `apps`.
 *
 * Node.js takes a second of CPU to find and to load the 2,200 modules of a broker, and the tests
 * start one some 200 times.
 */
export async function bundleApps(): Promise<string> {
  if ((await lastChange([FOLDER])) > (await lastChange(SOURCES.map((path) => join(ROOT, path))))) return FOLDER;
  await mkdir(join(ROOT, '.rowmq-test'), { recursive: true });
  const unfinished = await mkdtemp(`${FOLDER}-unfinished-`);
  try {
    for (const app of APPS) {
      // A broker reads its version two folders above its file.
      await cp(join(ROOT, 'apps', app, 'package.json'), join(unfinished, 'package.json'));
      // The page at /docs is served from its package. Brokers load no microservices,
      // and OpenTelemetry only if they trace.
      const bundle = await rolldown({
        input: join(ROOT, 'apps', app, 'dist', 'main.js'),
        platform: 'node',
        external: [/^swagger-ui-dist/, /^@nestjs\/microservices/, /^@opentelemetry\//],
        plugins: [ONE_TYPEORM],
        // Nest and TypeORM load packages that may be absent, and say so.
        logLevel: 'silent',
      });
      const file = join(unfinished, app, 'dist', 'main.js');
      // Nest and TypeORM read the names of classes.
      await bundle.write({ file, format: 'esm', keepNames: true, codeSplitting: false });
      await bundle.close();
    }
    await bundleCommandLine(join(unfinished, 'cli'));
    await rm(FOLDER, { recursive: true, force: true });
    await rename(unfinished, FOLDER);
  } finally {
    await rm(unfinished, { recursive: true, force: true });
  }
  return FOLDER;
}

/**
 * The command line, in a third of the CPU for each command. Parts that it loads when it needs them
 * stay files of their own.
 */
async function bundleCommandLine(folder: string): Promise<void> {
  const source = join(ROOT, 'apps', 'cli');
  await cp(join(source, 'package.json'), join(folder, 'package.json'));
  const bundle = await rolldown({
    input: join(source, 'dist', 'main.js'),
    platform: 'node',
    // It reads files that lie beside its own.
    external: ['@pnpm/tabtab'],
    logLevel: 'silent',
  });
  await bundle.write({ dir: join(folder, 'dist'), format: 'esm', keepNames: true });
  await bundle.close();
}

/** `@nestjs/typeorm` asks for exports of an older TypeORM, and would load a second one for that. */
const ONE_TYPEORM: Plugin = {
  name: 'one-typeorm',
  transform: {
    filter: { id: /@nestjs\/typeorm\/dist\/common\/typeorm-compat\.js$/ },
    handler: (code) => code.replace('const require = createRequire(import.meta.url);', ''),
  },
};

/** When a file of these was written last, in ms since 1970. */
async function lastChange(paths: readonly string[]): Promise<number> {
  const times = paths.map(async (path): Promise<number> => {
    const found = await stat(path).catch(() => undefined);
    if (found === undefined) return 0;
    if (!found.isDirectory()) return found.mtimeMs;
    const names = await readdir(path);
    const inner = names.filter((name) => name !== 'node_modules' && name !== 'src');
    return lastChange(inner.map((name) => join(path, name)));
  });
  return Math.max(0, ...(await Promise.all(times)));
}
