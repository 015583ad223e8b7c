import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
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
  outDir: 'dist',
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
   * @param library the workspace to pack; the contract that it depends on is packed with it
   * @param packages names of what else is installed
   */
  static async make(
    library: '@rowmq/client' | '@rowmq/typeorm',
    nest: NestMajor,
    packages: readonly string[],
  ): Promise<PackedProject> {
    const folder = await mkdtemp(join(tmpdir(), 'rowmq-user-'));
    const project = new PackedProject(folder);
    const tarballs = await pack(['@rowmq/contract', library], folder);
    const { devDependencies } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'));
    const versionOf = (name: string): string =>
      VERSIONS[nest][name] ??
      (name.startsWith('@nestjs/') ? String(nest) : (devDependencies as Record<string, string>)[name]!);
    const wanted = [...packages, '@types/node', 'typescript'].map((name) => `${name}@${versionOf(name)}`);
    await writeFile(join(folder, 'package.json'), JSON.stringify({ name: 'user', private: true }));
    const quietly = ['--no-audit', '--no-fund', '--loglevel=error', '--prefer-offline'];
    await run('npm', ['install', ...quietly, ...tarballs, ...wanted], { cwd: folder });
    for (const format of FORMATS) {
      await mkdir(join(folder, format));
      await project.write(format, 'package.json', JSON.stringify({ name: 'service', private: true, type: format }));
      await project.write(
        format,
        'tsconfig.json',
        JSON.stringify({ compilerOptions: COMPILER_OPTIONS, include: ['*.ts'] }),
      );
    }
    return project;
  }

  async write(format: Format, file: string, text: string): Promise<void> {
    await writeFile(join(this.folder, format, file), text);
  }

  async read(file: string): Promise<string> {
    return readFile(join(this.folder, file), 'utf8');
  }

  /**
   * Throws with the compiler's messages. It checks the libraries' declarations in one format only,
   * because they are the same in both.
   */
  async compile(format: Format): Promise<void> {
    const tsc = join(this.folder, 'node_modules', '.bin', 'tsc');
    const quickly = format === 'commonjs' ? ['--skipLibCheck'] : [];
    await run(tsc, ['-p', '.', ...quickly], { cwd: join(this.folder, format) }).catch((error: { stdout: string }) => {
      throw new Error(error.stdout);
    });
  }

  /** Runs a compiled file in a process of its own, and returns its output. */
  async run(format: Format, file: string, env: Record<string, string>): Promise<{ stdout: string; stderr: string }> {
    const options = { cwd: join(this.folder, format), env: { ...process.env, ...env }, timeout: 60_000 };
    return run(process.execPath, [join('dist', file)], options);
  }

  /**
   * Writes the `ts` samples of an installed package's README as files, and returns their number.
   */
  async takeReadmeSamples(format: Format, name: string): Promise<number> {
    const readme = await this.read(`node_modules/${name}/README.md`);
    const samples = [...readme.matchAll(/```ts\n([^]*?)```/g)].map(([, sample]) => sample as string);
    for (const [index, sample] of samples.entries()) await this.write(format, `readme-${index}.ts`, sample);
    return samples.length;
  }

  async remove(): Promise<void> {
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** Packs workspaces as `npm publish` would. Returns the paths of the tarballs. */
async function pack(workspaces: readonly string[], folder: string): Promise<string[]> {
  const named = workspaces.flatMap((name) => ['-w', name]);
  const { stdout } = await run('npm', ['pack', '--silent', ...named, '--pack-destination', folder], { cwd: ROOT });
  return stdout
    .trim()
    .split('\n')
    .map((file) => join(folder, file));
}
