import { execFileSync, type ExecFileSyncOptionsWithStringEncoding } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { cpus, totalmem } from 'node:os';
import { dirname, resolve } from 'node:path';
import { RESULTS_FOLDER, writeResultsFile } from '../results.js';
import { ROOT } from './rig.js';

/** A section of bench/RESULTS.md, and the figures behind it. */
export interface Report {
  title: string;
  /** Of `npm run`. */
  script: string;
  options: { json: string };
  /** By server, such as `mysql 9.7.4`. */
  results: Record<string, unknown>;
  /** The section's text below its header. */
  markdown: string;
}

/** Writes a report as JSON, prints its section, and renews bench/RESULTS.md if that is where the report belongs. */
export async function publish({ options, ...report }: Report): Promise<void> {
  const markdown = `${header(report)}\n\n${report.markdown}`;
  await mkdir(dirname(options.json), { recursive: true });
  await writeFile(options.json, `${JSON.stringify({ ...report, options, markdown }, undefined, 2)}\n`);
  console.log(`## ${report.title}\n\n${markdown}`);
  if (dirname(resolve(options.json)) === RESULTS_FOLDER) await writeResultsFile();
}

function header({ script, results }: Pick<Report, 'script' | 'results'>): string {
  const given = process.argv.slice(2).map((argument) => (/^[\w./=,-]+$/.test(argument) ? argument : `'${argument}'`));
  const command = ['npm run', script, ...(given.length > 0 ? ['--', ...given] : [])].join(' ');
  const [processor] = cpus();
  return [
    `\`${command}\``,
    '',
    `${new Date().toISOString().slice(0, 10)}, commit ${commit()}; ${cpus().length} × ${processor?.model ?? 'CPU'}, ${Math.round(totalmem() / 2 ** 30)} GiB; Node ${process.version}, ${Object.keys(results).join(', ')}.`,
    'Broker, database and load generator share the machine. Durable: innodb_flush_log_at_trx_commit=1, sync_binlog=1, binlog on, as the server itself says.',
  ].join('\n');
}

function commit(): string {
  try {
    const options = {
      cwd: ROOT,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
      env: { ...process.env, GIT_OPTIONAL_LOCKS: '0' },
    } satisfies ExecFileSyncOptionsWithStringEncoding;
    return execFileSync('git', ['describe', '--always', '--dirty'], options).trim();
  } catch {
    return 'unknown';
  }
}
