import type { Command } from 'commander';

/** Adds examples to a command's help. Each is a command line and its purpose. */
export function examples(command: Command, lines: readonly (readonly [line: string, purpose: string])[]): void {
  const width = Math.max(...lines.map(([line]) => line.length));
  const shown = lines.map(([line, purpose]) =>
    width <= 60 ? `  ${line.padEnd(width)}  ${purpose}` : `  # ${purpose}\n  ${line}`,
  );
  command.addHelpText('after', `\nExamples:\n${shown.join('\n')}`);
  LINES.set(
    command,
    lines.map(([line]) => line),
  );
}

const LINES = new WeakMap<Command, string[]>();

/** The command lines of a command's examples. */
export function examplesOf(command: Command): string[] {
  return LINES.get(command) ?? [];
}
