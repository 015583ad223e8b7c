import { getCompletionScript } from '@pnpm/tabtab';
import { Command } from 'commander';
import { UsageError } from '../exit-codes.js';
import { completionsOf } from '../completions.js';
import { examples } from '../examples.js';
import type { Open } from '../session.js';

const SHELLS = ['bash', 'zsh', 'fish'] as const;

export function completionCommand(): Command {
  const command = new Command('completion')
    .description('Print a script for your shell, which completes commands, options and queues')
    .argument('<shell>', SHELLS.join(', '))
    .action(async (name: string) => {
      const shell = SHELLS.find((one) => one === name);
      if (shell === undefined)
        throw new UsageError(`'${name}' is no shell that is known. Choose ${SHELLS.join(', ')}.`);
      process.stdout.write(await getCompletionScript({ name: 'rowmq', completer: 'rowmq', shell }));
    });
  examples(command, [
    ['rowmq completion bash > ~/.local/share/bash-completion/completions/rowmq', 'bash'],
    ['rowmq completion zsh > "${fpath[1]}/_rowmq"', 'zsh'],
    ['rowmq completion fish > ~/.config/fish/completions/rowmq.fish', 'fish'],
  ]);
  return command;
}

/** The scripts run this for each Tab, with the line so far in the environment. */
export function completionServer(open: Open, program: () => Command): Command {
  return new Command('completion-server')
    .description('Answer a shell what may come next')
    .allowUnknownOption()
    .argument('[words...]')
    .action(async () => {
      const session = open();
      const { COMP_LINE: line = '', COMP_POINT: point } = session.env;
      const typed = line.slice(0, point === undefined ? undefined : Number(point));
      const found = await completionsOf(program(), typed, async () => {
        // Somebody waits for the Tab: no answer is better than a late one.
        const { queues } = await session.client.listQueues({ timeoutMs: 3000, retrySeconds: 0 });
        return queues.map(({ name }) => name);
      });
      if (found.length > 0) process.stdout.write(`${found.join('\n')}\n`);
    });
}
