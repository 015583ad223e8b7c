import { Command } from 'commander';
import type { Finding } from '@rowmq/store/doctor';
import { CommandFailed, UsageError } from '../exit-codes.js';
import { examples } from '../examples.js';
import { examineBroker } from '../examine-broker.js';
import { inert } from '../output/inert.js';
import type { Output } from '../output/output.js';
import { wholeSeconds } from '../output/units.js';
import type { Open } from '../session.js';

interface DoctorOptions {
  broker?: true;
  database?: true;
  strict?: true;
  long: number;
}

export function doctorCommand(open: Open): Command {
  const command = new Command('doctor')
    .description('Check broker and database, and say what to change and why')
    .option('--broker', 'only the broker')
    .option('--database', 'only the database that ROWMQ_DATABASE_URL names')
    .option('--long <duration>', 'a transaction that is open so long is worth a warning', wholeSeconds, 60)
    .option('--strict', 'exit code 1 for warnings, too')
    .action(async ({ broker, database, strict, long }: DoctorOptions) => {
      const session = open();
      const { out } = session;
      const found: Finding[] = [];
      const print = async (findings: AsyncIterable<Finding>): Promise<void> => {
        for await (const finding of findings) {
          found.push(finding);
          out.item(finding, (one) => findingText(out, one));
        }
      };
      if (database !== true) await print(examineBroker(session.client));
      if (broker !== true) await print(examine(session.env, long, database === true));
      const counts = { faults: ofState(found, 'fault'), warnings: ofState(found, 'warning') };
      if (!out.json) out.line(`\n${counts.faults} faults, ${counts.warnings} warnings.`);
      if (counts.faults > 0 || (strict === true && counts.warnings > 0)) throw new CommandFailed('');
    });
  examples(command, [
    ['rowmq doctor', 'the broker, and the database if ROWMQ_DATABASE_URL is set'],
    ['rowmq doctor --database --strict', 'before a deployment'],
    ['rowmq doctor --json', 'a finding a line, for scripts'],
  ]);
  return command;
}

const ofState = (found: readonly Finding[], state: Finding['state']): number =>
  found.filter((finding) => finding.state === state).length;

/** The store is loaded here only: other commands need no database driver. */
async function* examine(env: NodeJS.ProcessEnv, longSeconds: number, isWanted: boolean): AsyncGenerator<Finding> {
  const { examineDatabase, readDoctorConfig } = await import('@rowmq/store/doctor');
  let config: ReturnType<typeof readDoctorConfig>;
  try {
    config = readDoctorConfig(env, longSeconds);
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
  if (config !== undefined) yield* examineDatabase(config);
  else if (isWanted) throw new UsageError('Set ROWMQ_DATABASE_URL to the database, as brokers have it.');
  else yield { check: 'database', state: 'unknown', text: 'Not examined: ROWMQ_DATABASE_URL is not set.' };
}

const MARKS = { ok: '✓', warning: '!', fault: '✗', unknown: '?' } as const;

function findingText({ paint }: Output, { check, state, text }: Finding): string {
  const colours = { ok: paint.green, warning: paint.yellow, fault: paint.red, unknown: paint.dim };
  return `${colours[state](`${MARKS[state]} ${state.padEnd(7)}`)}  ${paint.bold(check.padEnd(17))}  ${inert(text)}`;
}
