import type { Command } from 'commander';
import { describe, expect, it } from 'vitest';
import { examplesOf } from './examples.js';
import { makeProgram } from './program.js';

/** Every command with its words, such as `rowmq queue list`. */
function all(command: Command, words: string[] = []): { command: Command; words: string[] }[] {
  const path = [...words, command.name()];
  return [{ command, words: path }, ...command.commands.flatMap((child) => all(child, path))];
}

const COMMANDS = all(makeProgram({}).program).map(({ command, words }) => ({ command, name: words.join(' ') }));
const LEAVES = COMMANDS.filter(
  ({ command }) => command.commands.length === 0 && command.name() !== 'completion-server',
);

/** The words of a command line, without what a pipe or a redirection adds. */
function wordsOf(line: string): string[] {
  const command = line
    .split(/ \| (?=rowmq )|^(?=rowmq )/)
    .find((part) => part.startsWith('rowmq '))
    ?.replace(/ [|<>] .*$/, '');
  const words = [...(command ?? '').matchAll(/'([^']*)'|"([^"]*)"|(\S+)/g)];
  return words.map(([, single, double, bare]) => single ?? double ?? bare ?? '');
}

describe('the help', () => {
  it('knows at least 50 commands', () => expect(LEAVES.length).toBeGreaterThanOrEqual(50));

  it.each(LEAVES)('has examples for $name', ({ command, name }) => {
    const lines = examplesOf(command);
    expect(lines.length).toBeGreaterThan(0);
    for (const line of lines) expect(line).toContain(name.replace(/^rowmq queue (redrive|replay)$/, 'rowmq $1'));
  });

  it.each(COMMANDS)('describes $name and each of its options', ({ command }) => {
    expect(command.description()).toMatch(/^\S.{5,}/);
    for (const option of command.options) expect(option.description, option.flags).toMatch(/\S.{3,}/);
  });

  it.each(LEAVES.flatMap(({ command }) => examplesOf(command).map((line) => ({ line }))))(
    'shows an example that the command line accepts: $line',
    async ({ line }) => {
      const { program } = makeProgram({});
      let ran = 0;
      for (const { command } of all(program)) if (command.commands.length === 0) command.action(() => void (ran += 1));
      program.exitOverride();
      await program.parseAsync(wordsOf(line).slice(1), { from: 'user' });
      expect(ran).toBe(1);
    },
  );
});
