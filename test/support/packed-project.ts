import { execFile } from 'node:child_process';
import { mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** A project of somebody who installs a library's tarball: strict, outside the repository, with nothing of it around. */
export class PackedProject {
  private constructor(readonly folder: string) {}

  /** @param packages what is installed beside it, in the versions of this repository. */
  static async make(library: 'client' | 'store', packages: readonly string[]): Promise<PackedProject> {
    const folder = await mkdtemp(join(tmpdir(), 'rowmq-user-'));
    const { stdout } = await run('npm', ['run', '--silent', `pack:${library}`, '--', folder], { cwd: ROOT });
    const tarball = stdout.trim().split('\n').at(-1) as string;
    const { dependencies, devDependencies } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'));
    const versions: Record<string, string> = { ...dependencies, ...devDependencies };
    const compilerOptions = {
      target: 'es2023',
      module: 'nodenext',
      strict: true,
      exactOptionalPropertyTypes: true,
      noUncheckedIndexedAccess: true,
      experimentalDecorators: true,
      emitDecoratorMetadata: true,
      outDir: 'dist',
      types: ['node'],
    };
    const project = new PackedProject(folder);
    await project.write('package.json', JSON.stringify({ name: 'user', private: true, type: 'module' }));
    await project.write('tsconfig.json', JSON.stringify({ compilerOptions, include: ['*.ts', '*.cts'] }));
    const wanted = [...packages, '@types/node', 'typescript'].map((name) => `${name}@${versions[name]}`);
    const quietly = ['--no-audit', '--no-fund', '--loglevel=error'];
    await run('npm', ['install', ...quietly, tarball, ...wanted], { cwd: folder });
    return project;
  }

  async write(file: string, text: string): Promise<void> {
    await writeFile(join(this.folder, file), text);
  }

  async read(file: string): Promise<string> {
    return readFile(join(this.folder, file), 'utf8');
  }

  /** Throws with what the compiler says. */
  async compile(...options: string[]): Promise<void> {
    await run('npx', ['tsc', '-p', '.', ...options], { cwd: this.folder }).catch((error: { stdout: string }) => {
      throw new Error(error.stdout);
    });
  }

  /** Runs a compiled file in a process of its own, and answers what it printed. */
  async run(file: string, env: Record<string, string>): Promise<{ stdout: string; stderr: string }> {
    return run('node', [join('dist', file)], { cwd: this.folder, env: { ...process.env, ...env }, timeout: 60_000 });
  }

  /** The `ts` samples in the installed library's README, as files to be compiled. Answers how many there are. */
  async takeReadmeSamples(library: string): Promise<number> {
    const readme = await this.read(`node_modules/@rowmq/${library}/README.md`);
    const samples = [...readme.matchAll(/```ts\n([^]*?)```/g)].map(([, sample]) => sample as string);
    for (const [index, sample] of samples.entries()) await this.write(`readme-${index}.ts`, sample);
    return samples.length;
  }
}
