import { createInterface } from 'node:readline/promises';
import { CommandFailed, EXIT, UsageError } from './exit-codes.js';
import { inert } from './output/inert.js';

/**
 * Asks a person to type the name of what is about to be lost. A script has nobody to ask, so it
 * must say `--yes`.
 */
export async function confirmByName(kind: string, name: string, effect: string): Promise<void> {
  if (!process.stdin.isTTY || !process.stderr.isTTY)
    throw new UsageError(`${effect} Nobody can be asked here: repeat the command with --yes.`);
  process.stderr.write(`${inert(effect)}\n`);
  const typed = await ask(`Type the name of the ${kind} to go on: `);
  if (typed === undefined) throw new CommandFailed('\nNothing was done.', EXIT.interrupted);
  if (typed !== name) throw new CommandFailed(`That is not ${inert(name)}. Nothing was done.`);
}

/** Undefined after Ctrl-C or Ctrl-D. */
async function ask(question: string): Promise<string | undefined> {
  const prompt = createInterface({ input: process.stdin, output: process.stderr });
  const given = new AbortController();
  prompt.once('SIGINT', () => given.abort());
  prompt.once('close', () => given.abort());
  try {
    return (await prompt.question(question, { signal: given.signal })).trim();
  } catch {
    return undefined;
  } finally {
    prompt.close();
  }
}
