import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { useOwnBroker } from '../support/api.js';
import { Terminal } from '../support/cli.js';

/* `rowmq` as people use it, in a terminal. */

/** Each command is a process, which takes seconds on a busy machine. */
const COMMANDS_MS = 180_000;

// The live table shows the deepest queues of all.
const shared = useOwnBroker();
const terminals: Terminal[] = [];
afterEach(() => {
  for (const terminal of terminals.splice(0)) terminal.kill();
});

function open(
  args: string,
  env: Record<string, string> = {},
  size?: { cols: number; rows: number },
  stdin?: string,
): Terminal {
  const terminal = Terminal.ofRowmq(args.split(' '), { ROWMQ_URL: shared.broker.url, ...env }, size, stdin);
  terminals.push(terminal);
  return terminal;
}

const ESCAPE = '\u001b[';

describe('a terminal', { timeout: COMMANDS_MS }, () => {
  it('gets colours, and none with NO_COLOR or --no-color', async () => {
    const { name } = await shared.newQueue();
    const coloured = open(`queue list ${name}`);
    expect(await coloured.exitCode()).toBe(0);
    expect(coloured.raw).toContain(`${ESCAPE}1mQUEUE`);
    for (const plain of [open(`queue list ${name}`, { NO_COLOR: '1' }), open(`queue list ${name} --no-color`)]) {
      expect(await plain.exitCode()).toBe(0);
      expect(plain.text).toContain(name);
      expect(plain.raw).not.toContain(ESCAPE);
    }
  });

  it('is not moved by what a message says', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue({ body: `${ESCAPE}2J${ESCAPE}31mhostile\u0007`, headers: { h: `${ESCAPE}5m` } });
    for (const command of [
      `peek ${queue.name}`,
      `peek ${queue.name} --full`,
      `receive ${queue.name} --body --lease 1`,
    ]) {
      // Wide enough for the whole body, however many characters its age has.
      const terminal = open(command, { NO_COLOR: '1' }, { cols: 200, rows: 24 });
      expect(await terminal.exitCode()).toBe(0);
      expect(terminal.text).toContain('\\x1b[31mhostile\\x07');
      expect(terminal.raw).not.toContain(ESCAPE);
    }
  });

  it('is asked for the name of the queue before a purge or a delete, and nothing happens for another name', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('a', 'b');
    const wrong = open(`queue purge ${queue.name}`);
    await wrong.shows('This settles 2 messages');
    await wrong.shows('Type the name of the queue');
    wrong.type('orders\r');
    expect(await wrong.exitCode()).toBe(1);
    expect(wrong.text).toContain('Nothing was done');
    const given = open(`queue delete ${queue.name} --force`);
    await given.shows('with 2 messages');
    given.type('\u0003');
    expect(await given.exitCode()).toBe(130);
    expect((await queue.get()).stats.ready).toBe(2);
    const right = open(`queue purge ${queue.name}`);
    await right.shows('Type the name of the queue');
    right.type(`${queue.name}\r`);
    expect(await right.exitCode()).toBe(0);
    expect(right.text).toContain('2 messages purged');
    expect((await queue.get()).stats.ready).toBe(0);
  });

  it('shows a bar with the rate while a file of messages is sent, and then a sentence', async () => {
    const queue = await shared.newQueue();
    const folder = await mkdtemp(join(tmpdir(), 'rowmq-lines-'));
    try {
      const file = join(folder, 'lines.ndjson');
      await writeFile(file, Array.from({ length: 3000 }, (_, index) => `{"body":"${index}"}\n`).join(''));
      const terminal = open(`send ${queue.name} --ndjson`, {}, undefined, file);
      expect(await terminal.exitCode()).toBe(0);
      expect(terminal.text).toMatch(/sending to \S+ [█░]+ \d+%/);
      expect(terminal.text).toMatch(/3,000 messages sent, [\d,]+\/s\./);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
    expect((await queue.get()).stats.ready).toBe(3000);
  });

  it('shows a live table that changes in place, fits its lines, and ends with Ctrl-C', async () => {
    const queue = await shared.newQueue();
    for (let more = 0; more < 12; more += 1) await shared.newQueue();
    const terminal = open('stats --watch --interval 0.2', {}, { cols: 150, rows: 8 });
    await terminal.shows(/… and \d+ more/);
    await queue.enqueue('a', 'b', 'c');
    // The deepest come first.
    await terminal.shows(new RegExp(`${queue.name} +3 .*█`));
    expect(terminal.raw).toContain(`${ESCAPE}?25l`);
    terminal.type('\u0003');
    expect(await terminal.exitCode()).toBe(0);
    // The cursor is back.
    expect(terminal.raw.lastIndexOf(`${ESCAPE}?25h`)).toBeGreaterThan(terminal.raw.lastIndexOf(`${ESCAPE}?25l`));
  });
});
