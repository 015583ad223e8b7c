import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { useOwnBroker } from '../support/api.js';
import { programPath, rowmq, Terminal } from '../support/cli.js';
import { findShell } from '../support/shells.js';

/* Completion by itself, and in each shell as somebody who has installed it uses it. */

/** Each Tab is a process, which takes seconds on a busy machine. */
const COMMANDS_MS = 180_000;
const zsh = findShell('zsh');
const fish = findShell('fish');

const shared = useOwnBroker({});
const lines = (text: string): string[] => text.split('\n').filter((line) => line !== '');

describe('completion', { timeout: COMMANDS_MS }, () => {
  let folder: string;
  /** A user's environment, with `rowmq` in the path. */
  let env: Record<string, string>;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'rowmq-completion-'));
    await mkdir(join(folder, 'bin'));
    await writeFile(join(folder, 'bin', 'rowmq'), `#!/bin/sh\nexec '${process.execPath}' '${programPath()}' "$@"\n`, {
      mode: 0o755,
    });
    env = { ROWMQ_URL: shared.broker.url, PATH: `${join(folder, 'bin')}:${process.env['PATH']}`, HOME: folder };
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  async function scriptFor(shell: string): Promise<string> {
    const { code, stdout, stderr } = await rowmq(['completion', shell], { env });
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    return stdout;
  }

  const complete = async (line: string): Promise<string[]> => {
    const words = line.split(' ');
    const { stdout } = await rowmq(['completion-server', '--', ...words], {
      env: { ...env, COMP_LINE: line, COMP_POINT: String(line.length), COMP_CWORD: String(words.length - 1) },
    });
    return lines(stdout);
  };

  it('knows commands, options, and names of queues', async () => {
    const { name } = await shared.newQueue();
    expect(await complete('rowmq que')).toEqual(['queue']);
    expect(await complete('rowmq queue p')).toEqual(['pause', 'purge']);
    expect(await complete('rowmq queue purge --y')).toEqual(['--yes']);
    expect(await complete(`rowmq --json send ${name}`)).toContain(name);
    expect(await complete(`rowmq redrive x --to ${name}`)).toContain(name);
    expect(await complete('rowmq queue list x y')).toEqual([]);
  });

  it('refuses a shell that it does not know', async () => {
    expect(await rowmq(['completion', 'csh'], { env })).toMatchObject({ code: 2 });
  });

  it('works in bash', async () => {
    const { name } = await shared.newQueue();
    const script = `source <(rowmq completion bash)
      COMP_WORDS=(rowmq queue show ${name}) COMP_CWORD=3 COMP_LINE='rowmq queue show ${name}' COMP_POINT=\${#COMP_LINE}
      _rowmq_completion; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const { stdout } = await promisify(execFile)('bash', ['-c', script], {
      env: { ...env, ROWMQ_CONFIG: '/nonexistent' },
      timeout: 60_000,
    });
    expect(lines(stdout)).toContain(name);
  });

  /**
   * Types a command whose words the shell completes by Tab, and waits for its output. A shell draws
   * its line in pieces, so only the output tells which words it has.
   */
  async function expectTab(shell: [string, ...string[]], prompt: string, more: Record<string, string>): Promise<void> {
    const name = `completed-by-${basename(shell[0])}`;
    await shared.api.queue(name).put();
    const terminal = new Terminal(shell, { ...env, ...more });
    try {
      await terminal.shows(prompt);
      terminal.type(`rowmq --json queue sho\t${name.slice(0, -2)}\t\r`);
      await terminal.shows(`"name": "${name}"`);
    } finally {
      terminal.kill();
    }
  }

  it.skipIf(zsh === undefined)('works in zsh, from a folder of its functions, when somebody presses Tab', async () => {
    const functions = join(folder, 'zsh-functions');
    await mkdir(functions);
    await writeFile(join(functions, '_rowmq'), await scriptFor('zsh'));
    await writeFile(
      join(folder, '.zshrc'),
      `fpath=('${functions}' $fpath)\nautoload -Uz compinit\ncompinit -u -d '${join(folder, 'dump')}'\nPS1='ready> '\n`,
    );
    await expectTab([zsh as string, '-i'], 'ready> ', { ZDOTDIR: folder });
  });

  it.skipIf(fish === undefined)(
    'works in fish, from its folder of completions, when somebody presses Tab',
    async () => {
      const config = join(folder, 'config', 'fish');
      await mkdir(join(config, 'completions'), { recursive: true });
      await writeFile(join(config, 'completions', 'rowmq.fish'), await scriptFor('fish'));
      // Without this folder, fish begins to read all manuals of the machine.
      await mkdir(join(folder, '.local', 'share', 'fish', 'generated_completions'), { recursive: true });
      await writeFile(join(config, 'config.fish'), `function fish_prompt; echo 'ready> '; end\n`);
      await expectTab([fish as string, '-i'], 'ready> ', { XDG_CONFIG_HOME: join(folder, 'config') });
    },
  );
});
