import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** The major versions of Nest that the public packages support. */
export const NEST_MAJORS = [11, 12] as const;
export type NestMajor = (typeof NEST_MAJORS)[number];

/** The module format of a service: `"type": "module"` or `"commonjs"` in its package.json. */
export const FORMATS = ['module', 'commonjs'] as const;
export type Format = (typeof FORMATS)[number];

/**
 * The versions that a new project of each Nest major gets today. All other packages have this
 * repository's version.
 */
const VERSIONS: Record<NestMajor, Record<string, string>> = {
  11: { '@nestjs/typeorm': '11', typeorm: '0.3', typescript: '5' },
  12: { '@nestjs/typeorm': '12', typeorm: '1', typescript: '6' },
};

/** The options of `nest new`, with every check of `strict` and two more. */
const COMPILER_OPTIONS = {
  module: 'nodenext',
  moduleResolution: 'nodenext',
  resolvePackageJsonExports: true,
  esModuleInterop: true,
  isolatedModules: true,
  declaration: true,
  removeComments: true,
  emitDecoratorMetadata: true,
  experimentalDecorators: true,
  allowSyntheticDefaultImports: true,
  target: 'ES2023',
  sourceMap: true,
  rootDir: '.',
  strict: true,
  strictPropertyInitialization: false,
  exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true,
  types: ['node'],
};

/**
 * Two strict Nest services, one of ES modules and one of CommonJS. They share one installation of
 * the public packages' tarballs. They are outside the repository, so that Node.js and the compiler
 * see only the packed files.
 */
export class PackedProject {
  private constructor(readonly folder: string) {}

  /**
   * @param tarballs the public packages, as `pack` returns them
   * @param packages names of what else is installed
   */
  static async make(tarballs: readonly string[], nest: NestMajor, packages: readonly string[]): Promise<PackedProject> {
    const folder = await mkdtemp(join(tmpdir(), 'rowmq-user-'));
    const project = new PackedProject(folder);
    const { devDependencies } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'));
    const versionOf = (name: string): string =>
      VERSIONS[nest][name] ??
      (name.startsWith('@nestjs/') ? String(nest) : (devDependencies as Record<string, string>)[name]!);
    const wanted = [...packages, '@types/node', 'typescript'].map((name) => `${name}@${versionOf(name)}`);
    await project.write('package.json', JSON.stringify({ name: 'user', private: true }));
    const quietly = ['--no-audit', '--no-fund', '--loglevel=error', '--prefer-offline'];
    await run('npm', ['install', ...quietly, ...tarballs, ...wanted], { cwd: folder });
    for (const format of FORMATS) {
      await mkdir(join(folder, format));
      await project.write(`${format}/package.json`, JSON.stringify({ name: 'service', private: true, type: format }));
    }
    const include = FORMATS.map((format) => `${format}/*.ts`);
    await project.write('tsconfig.json', JSON.stringify({ compilerOptions: COMPILER_OPTIONS, include }));
    return project;
  }

  async write(file: string, text: string): Promise<void> {
    await writeFile(join(this.folder, file), text);
  }

  async read(file: string): Promise<string> {
    return readFile(join(this.folder, file), 'utf8');
  }

  /**
   * Compiles both services, each file in the module format of its service. Throws with the
   * compiler's messages.
   */
  async compile(): Promise<void> {
    const tsc = join(this.folder, 'node_modules', '.bin', 'tsc');
    await run(tsc, ['-p', '.'], { cwd: this.folder }).catch((error: { stdout: string }) => {
      throw new Error(error.stdout);
    });
  }

  /** Runs a compiled file in a process of its own, and returns its output. */
  async run(format: Format, file: string, env: Record<string, string>): Promise<{ stdout: string; stderr: string }> {
    const options = { cwd: join(this.folder, format), env: { ...process.env, ...env }, timeout: 60_000 };
    return run(process.execPath, [file], options);
  }

  /**
   * Writes the `ts` samples of an installed package's README as files, and returns their number.
   * Leaves out the samples for these packages, which are not installed.
   */
  async takeReadmeSamples(format: Format, name: string, without: readonly string[] = []): Promise<number> {
    const readme = await this.read(`node_modules/${name}/README.md`);
    const samples = [...readme.matchAll(/```ts\n([^]*?)```/g)]
      .map(([, sample]) => sample as string)
      .filter((sample) => !without.some((missing) => sample.includes(` from '${missing}`)));
    for (const [index, sample] of samples.entries())
      await this.write(`${format}/readme-${basename(name)}-${index}.ts`, sample);
    return samples.length;
  }

  /**
   * Names of a package and of all packages that npm installs for it: dependencies, and peers that
   * are not optional.
   */
  async installedFor(name: string): Promise<string[]> {
    const { packages } = JSON.parse(await this.read('node_modules/.package-lock.json')) as {
      packages: Record<string, LockedPackage>;
    };
    const found = new Set<string>();
    const visit = (path: string): void => {
      if (found.has(path)) return;
      found.add(path);
      const { dependencies, optionalDependencies, peerDependencies, peerDependenciesMeta } = packages[path]!;
      const names = Object.keys({ ...dependencies, ...optionalDependencies, ...peerDependencies });
      for (const needed of names.filter((one) => peerDependenciesMeta?.[one]?.optional !== true)) {
        const place = nearest(path, needed, packages);
        if (place !== undefined) visit(place);
        else if (optionalDependencies?.[needed] === undefined)
          throw new Error(`${path} needs ${needed}, which is not installed`);
      }
    };
    visit(`node_modules/${name}`);
    return [...found].map((path) => path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length)).toSorted();
  }

  async remove(): Promise<void> {
    await rm(this.folder, { recursive: true, force: true });
  }
}

interface LockedPackage {
  dependencies?: Record<string, string>;
  optionalDependencies?: Record<string, string>;
  peerDependencies?: Record<string, string>;
  peerDependenciesMeta?: Record<string, { optional?: boolean }>;
}

/** The path of the package that Node.js loads by this name from a package. */
function nearest(from: string, name: string, packages: Record<string, LockedPackage>): string | undefined {
  for (let folder = from; ; folder = folder.slice(0, Math.max(0, folder.lastIndexOf('/')))) {
    const path = folder === '' ? `node_modules/${name}` : `${folder}/node_modules/${name}`;
    if (packages[path] !== undefined) return path;
    if (folder === '') return undefined;
  }
}

/** Packs workspaces as `npm publish` would. Returns the paths of the tarballs. */
export async function pack(workspaces: readonly string[], folder: string): Promise<string[]> {
  const named = workspaces.flatMap((name) => ['-w', name]);
  const { stdout } = await run('npm', ['pack', '--silent', ...named, '--pack-destination', folder], { cwd: ROOT });
  return stdout
    .trim()
    .split('\n')
    .map((file) => join(folder, file));
}
