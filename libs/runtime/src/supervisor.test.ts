import { describe, expect, test } from 'vitest';
import { type Running, Supervisor } from './supervisor.js';

const QUICK = { firstMs: 4, longestMs: 16, healthyMs: 60_000 };

/** A child that ends when the test says so. */
class FakeChild implements Running {
  readonly pid = 1;
  readonly exited: Promise<string>;
  stopped = 0;
  end!: (how: string) => void;

  constructor() {
    this.exited = new Promise((done) => (this.end = done));
  }

  stop(): Promise<void> {
    this.stopped++;
    this.end('SIGTERM');
    return Promise.resolve();
  }

  kill(): Promise<void> {
    this.end('SIGKILL');
    return Promise.resolve();
  }
}

function supervise(startOnce: (attempt: number) => FakeChild) {
  const children: FakeChild[] = [];
  const lines: string[] = [];
  let attempts = 0;
  const supervisor = new Supervisor(
    'child',
    (signal) => {
      signal.throwIfAborted();
      const child = startOnce(++attempts);
      children.push(child);
      return Promise.resolve(child);
    },
    (line) => lines.push(line),
    QUICK,
  );
  return { supervisor, children, lines, attempts: () => attempts };
}

describe('the supervisor', () => {
  test('throws if the first start fails, and does not retry', async () => {
    const { supervisor, attempts } = supervise(() => {
      throw new Error('wrong setting');
    });
    await expect(async () => supervisor.start()).rejects.toThrow('wrong setting');
    await supervisor.stop();
    expect(attempts()).toBe(1);
  });

  test('restarts a child that ended, also if the first restart fails', async () => {
    const { supervisor, children, lines } = supervise((attempt) => {
      if (attempt === 2 || attempt === 3) throw new Error('not yet');
      return new FakeChild();
    });
    await supervisor.start();
    children[0]!.end('SIGKILL');
    await expect.poll(() => children.length).toBe(2);
    expect(lines.join('\n')).toMatch(/ended unexpectedly: SIGKILL[^]*not yet[^]*not yet[^]*running again/);
    await supervisor.stop();
  });

  test('doubles its pauses, up to a limit', async () => {
    const { supervisor, children, lines } = supervise(() => new FakeChild());
    await supervisor.start();
    for (let ended = 0; ended < 6; ended++) {
      await expect.poll(() => children.length).toBe(ended + 1);
      children[ended]!.end('exit code 1');
    }
    await expect.poll(() => children.length).toBe(7);
    expect(lines.filter((line) => line.startsWith('Starting the child again'))).toHaveLength(6);
    await supervisor.stop();
  });

  test('stops the child for good', async () => {
    const { supervisor, children, lines } = supervise(() => new FakeChild());
    await supervisor.start();
    await supervisor.stop();
    await supervisor.stop();
    expect(children).toHaveLength(1);
    expect(children[0]!.stopped).toBe(1);
    expect(lines).toEqual([]);
  });

  test('can be stopped while it pauses before a restart', async () => {
    const { supervisor, children, lines } = supervise(() => new FakeChild());
    await supervisor.start();
    children[0]!.end('SIGKILL');
    await expect.poll(() => lines.length).toBe(2);
    await supervisor.stop();
    await expect.poll(() => children.every((child, index) => index === 0 || child.stopped > 0)).toBe(true);
  });
});
