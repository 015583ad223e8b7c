import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { auditCommand } from './commands/audit.js';
import { deadCommand } from './commands/dead.js';
import { jobCommand } from './commands/job.js';
import { keyCommand } from './commands/key.js';
import { messageCommand } from './commands/message.js';
import { profileCommand } from './commands/profile.js';
import { scheduleCommand } from './commands/schedule.js';
import { topicCommand } from './commands/topic.js';
import { benchCommand } from './commands/bench.js';
import { doctorCommand } from './commands/doctor.js';
import { tailCommand } from './commands/tail.js';
import { completionCommand, completionServer } from './commands/completion.js';
import { queueCommand } from './commands/queue.js';
import { peekCommand } from './commands/peek.js';
import { receiveCommand } from './commands/receive.js';
import { redriveCommand, replayCommand } from './commands/move.js';
import { sendCommand } from './commands/send.js';
import { ackCommand, extendCommand, nackCommand, releaseCommand } from './commands/settle.js';
import { statsCommand } from './commands/stats.js';
import { examples } from './examples.js';
import { wholeNumber } from './output/units.js';
import { Session } from './session.js';

/** Not `new URL('…', import.meta.url)`: Vite would turn that into a URL of the file's content. */
const manifest = join(import.meta.dirname, '..', 'package.json');
const { version } = JSON.parse(readFileSync(manifest, 'utf8')) as { version: string };

const AFTER = `
Broker and key come from --url or --profile, else from ROWMQ_URL and ROWMQ_KEY, else from the default
profile. A key is never an option, because other users of the machine can see options.

Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 3 no broker answered; 4 nothing to get;
130 stopped with Ctrl-C.`;

/** The whole command line, and the session of the command that runs. */
export function makeProgram(env: NodeJS.ProcessEnv): { program: Command; session: () => Session } {
  let session: Session | undefined;
  const program = new Command('rowmq')
    .description("RowMQ's command line: queues, messages, dead letters, schedules, keys")
    .version(version)
    .option('--url <url>', 'the broker; several, separated by commas, that stand in for each other')
    .option('--profile <name>', 'a broker and its key from the file of profiles')
    .option('--json', 'print JSON for scripts; streams have one object a line')
    .option('--no-color', 'no colours; neither if NO_COLOR is set, or outside a terminal')
    .option('--timeout <seconds>', 'the deadline of a call', wholeNumber(1, 600), 10);
  const open = (): Session => (session ??= new Session(program.opts<Session['options']>(), env));
  const commands = [
    queueCommand(open),
    sendCommand(open),
    receiveCommand(open),
    ackCommand(open),
    nackCommand(open),
    releaseCommand(open),
    extendCommand(open),
    peekCommand(open),
    statsCommand(open),
    redriveCommand(open),
    replayCommand(open),
    deadCommand(open),
    messageCommand(open),
    jobCommand(open),
    topicCommand(open),
    scheduleCommand(open),
    keyCommand(open),
    auditCommand(open),
    profileCommand(open),
    tailCommand(open),
    benchCommand(open),
    doctorCommand(open),
    completionCommand(),
  ];
  for (const command of commands) program.addCommand(command);
  program.addCommand(
    completionServer(open, () => program),
    { hidden: true },
  );
  examples(program, [
    ['rowmq stats --watch', 'what the queues do now'],
    ['rowmq queue create orders', 'a queue'],
    ['rowmq send orders \'{"order":17}\'', 'a message'],
    ['rowmq receive orders --ack', 'take it out'],
  ]);
  program.addHelpText('after', AFTER);
  inherit(program);
  return { program: program, session: open };
}

/** Every command ends through an exception, so that the exit code is ours. */
function inherit(command: Command): void {
  command.exitOverride();
  command.showHelpAfterError('(add --help for options and examples)');
  command.configureHelp({ showGlobalOptions: true });
  for (const child of command.commands) inherit(child);
}
