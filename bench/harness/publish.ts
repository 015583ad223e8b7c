import { execFileSync, type ExecFileSyncOptionsWithStringEncoding } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { cpus, totalmem } from 'node:os';
import { dirname, resolve } from 'node:path';
import { RESULTS_FOLDER, writeResultsFile } from '../results.js';
import { ROOT } from './rig.js';

/** A section of bench/RESULTS.md, and the figures behind it. */
export interface Report {
  title: string;
  /** The script's name in `npm run`. */
  script: string;
  /** The arguments after the script's name. */
  args: readonly string[];
  options: { json: string };
  /** By server, such as `mysql 9.7.4`. */
  results: Record<string, unknown>;
  /** The section's text below its header. */
  markdown: string;
}

/**
 * Writes a report as JSON, prints its section, and renews bench/RESULTS.md if that is where the
 * report belongs.
 */
export async function publish({ options, args, ...report }: Report): Promise<void> {
  const circumstances = { date: new Date().toISOString().slice(0, 10), commit: commit(), machine: machine() };
  const markdown = `${header({ ...report, args }, circumstances)}\n\n${report.markdown}`;
  // The path of the file says nothing to a reader on another machine.
  const { json, ...measured } = options;
  await mkdir(dirname(json), { recursive: true });
  const text = JSON.stringify({ ...report, ...circumstances, options: measured, markdown }, undefined, 2);
  await writeFile(json, `${text}\n`);
  console.log(`## ${report.title}\n\n${markdown}`);
  if (dirname(resolve(json)) === RESULTS_FOLDER) await writeResultsFile();
}

interface Circumstances {
  date: string;
  commit: string;
  machine: string;
}

function header(
  { script, args, results }: Pick<Report, 'script' | 'args' | 'results'>,
  circumstances: Circumstances,
): string {
  const given = args.map((argument) => (/^[\w./=,-]+$/.test(argument) ? argument : `'${argument}'`));
  const command = ['npm run', script, ...(given.length > 0 ? ['--', ...given] : [])].join(' ');
  const { date, commit: of, machine: on } = circumstances;
  return [
    `\`${command}\``,
    '',
    `${date}, commit ${of}; ${on};`,
    `Node ${process.version}, ${Object.keys(results).join(', ')}.`,
    'Broker, database and load generator share the machine. The server itself reports durable settings:',
    'innodb_flush_log_at_trx_commit=1, sync_binlog=1, binlog on.',
  ].join('\n');
}

function machine(): string {
  const [processor] = cpus();
  return `${cpus().length} × ${processor?.model ?? 'CPU'}, ${Math.round(totalmem() / 2 ** 30)} GiB`;
}

/** The commit, and whether other files than the results differ from it. */
function commit(): string {
  const options = {
    cwd: ROOT,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
    env: { ...process.env, GIT_OPTIONAL_LOCKS: '0' },
  } satisfies ExecFileSyncOptionsWithStringEncoding;
  const git = (...args: string[]): string => execFileSync('git', args, options).trim();
  try {
    const isClean = git('status', '--porcelain', '--', ':!bench/RESULTS.md') === '';
    return `${git('describe', '--always')}${isClean ? '' : '-dirty'}`;
  } catch {
    return 'unknown';
  }
}
