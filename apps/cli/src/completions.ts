import type { Command } from 'commander';

/**
 * The words that may come at the end of a command line: commands, options, or names of queues where
 * a queue is expected.
 */
export async function completionsOf(
  program: Command,
  typed: string,
  queues: () => Promise<string[]>,
): Promise<string[]> {
  const words = typed.split(/\s+/).slice(1);
  const last = words.pop() ?? '';
  let command = program;
  let position = 0;
  let expectsValue: string | undefined;
  for (const word of words) {
    if (expectsValue !== undefined) {
      expectsValue = undefined;
      continue;
    }
    if (word.startsWith('-')) {
      const option = [...command.options, ...program.options].find((one) => one.long === word || one.short === word);
      expectsValue = option !== undefined && (option.required || option.optional) ? option.flags : undefined;
      continue;
    }
    const child = command.commands.find((one) => one.name() === word || one.aliases().includes(word));
    if (child === undefined) position += 1;
    else command = child;
  }
  const matching = (names: readonly string[]): string[] => names.filter((name) => name.startsWith(last));
  if (expectsValue !== undefined) return expectsValue.endsWith('<queue>') ? matching(await silently(queues)) : [];
  if (last.startsWith('-')) {
    const options = [...command.options, ...program.options].filter(({ hidden }) => !hidden);
    return matching([...new Set([...options.flatMap(({ long }) => long ?? []), '--help'])]).toSorted();
  }
  if (command.commands.length > 0 && position === 0)
    return matching(
      command
        .createHelp()
        .visibleCommands(command)
        .map((one) => one.name()),
    ).toSorted();
  const argument = command.registeredArguments[position];
  return argument?.name() === 'queue' ? matching(await silently(queues)) : [];
}

async function silently(names: () => Promise<string[]>): Promise<string[]> {
  try {
    return await names();
  } catch {
    return [];
  }
}
