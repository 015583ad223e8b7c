import { once } from 'node:events';
import { syncBuiltinESMExports } from 'node:module';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import timersPromises, { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { isNotPrimary, isRetryable, ReadOnlyServerError } from './database-errors.js';
import { NoPrimaryError, Primary, type Proof, refuseReadOnly } from './primary.js';

const servers: Server[] = [];
const accepted: Socket[] = [];
let urls: string[];
/**
 * Each host's reaction to a probe. `undefined` means that it takes writes. A promise delays that
 * answer until it resolves. A text is the identity of the server that takes writes. Several are the
 * servers to which the probe's connections lead.
 */
let says: (Error | Promise<void> | string | string[] | undefined)[];
let asked: number[];

// A clock that goes on by 20 ms in each turn that Node gives a real timer of 20 ms. While a busy
// machine stops the process it stands still. Otherwise Node then ends the search's wait for a host
// before it runs the test's timer with the answer.
const { setTimeout: realSleep } = timersPromises;
/** Also replaces the function of those who have imported it. */
function replaceSleep(by: unknown): void {
  Object.assign(timersPromises, { setTimeout: by });
  syncBuiltinESMExports();
}
beforeAll(() => {
  vi.useFakeTimers({ shouldAdvanceTime: true, toFake: ['setTimeout', 'clearTimeout', 'performance'] });
  replaceSleep(
    async (ms: number, value: unknown) => new Promise((resolve) => void setTimeout(() => resolve(value), ms)),
  );
});
afterAll(() => {
  vi.useRealTimers();
  replaceSleep(realSleep);
});

beforeEach(async () => {
  urls = [];
  for (let index = 0; index < 3; index += 1) {
    const server = createServer((socket) => accepted.push(socket.on('error', () => undefined))).listen(0, '127.0.0.1');
    await once(server, 'listening');
    servers.push(server);
    urls.push(`mysql://u:secret@127.0.0.1:${(server.address() as AddressInfo).port}/db`);
  }
  says = [undefined, new ReadOnlyServerError(), new ReadOnlyServerError()];
  asked = [0, 0, 0];
});

afterEach(async () => {
  for (const socket of accepted.splice(0)) socket.destroy();
  for (const server of servers.splice(0)) {
    server.close();
    await once(server, 'close');
  }
});

async function probe(url: string): Promise<Proof> {
  const index = urls.indexOf(url);
  asked[index] = (asked[index] ?? 0) + 1;
  const answer = says[index];
  await (answer instanceof Promise ? answer : undefined);
  if (answer instanceof Error) throw answer;
  if (Array.isArray(answer)) return proof(...(answer as [string]));
  return proof(typeof answer === 'string' ? answer : `server ${index}`);
}

function proof(server: string, ...others: string[]): Proof {
  return { server, others: Promise.resolve(others) };
}

const host = (index: number): string => new URL(urls[index] as string).host;
const lost = (): Error => Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' });
const never = new Promise<never>(() => undefined);

async function connected(primary: Primary): Promise<Socket> {
  const socket = primary.open({ config: {} }).on('error', () => undefined);
  await once(socket, 'connect');
  return socket;
}

async function expectMovedTo(primary: Primary, index: number): Promise<void> {
  await primary.ready();
  expect(primary.host).toBe(host(index));
}

describe('Primary', () => {
  test('does not search because of failures if the URL has one host', () => {
    expect(Primary.of('mysql://u:p@a:3306/db').hasChoice).toBe(false);
    expect(Primary.of('mysql://u:p@a:3306,b/db').hasChoice).toBe(true);
    const primary = new Primary(urls.slice(0, 1), probe);
    primary.doubt(host(0));
    primary.suspect(host(0));
    expect(asked).toEqual([0, 0, 0]);
  });

  test('throws a single host’s own error at the start, and accepts that it is read-only', async () => {
    const single = (): Primary => new Primary(urls.slice(0, 1), probe);
    says = [lost()];
    await expect(single().find()).rejects.toBe(says[0]);
    says = [new ReadOnlyServerError()];
    await single().find();
  });

  test('finds the host that takes writes, in any position of the URL', async () => {
    for (const index of [0, 1, 2]) {
      says = [0, 1, 2].map((each) => (each === index ? undefined : new ReadOnlyServerError()));
      const primary = new Primary(urls, probe);
      await primary.find();
      expect(primary.host).toBe(host(index));
      const socket = await connected(primary);
      expect(socket.remotePort).toBe(Number(new URL(urls[index] as string).port));
      socket.destroy();
    }
  });

  test('names each host and its reason, but no password, if no host takes writes', async () => {
    says = [new ReadOnlyServerError(), lost(), Object.assign(new Error('Access denied'), { errno: 1045 })];
    const error = await new Primary(urls, probe).find().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(NoPrimaryError);
    expect((error as Error).message).toBe(
      `no host takes writes: ${host(0)} (the server is read-only), ${host(1)} (connect ECONNREFUSED), ${host(2)} (Access denied)`,
    );
    expect(isRetryable(error)).toBe(true);
    says = urls.map(() => Object.assign(new Error('Access denied'), { errno: 1045 }));
    expect(isRetryable(await new Primary(urls, probe).find().catch((thrown: unknown) => thrown))).toBe(false);
  });

  test('refuses to start if two hosts take writes', async () => {
    says = [undefined, new ReadOnlyServerError(), undefined];
    await expect(new Primary(urls, probe).find()).rejects.toThrow(`${host(0)} and ${host(2)} both take writes`);
  });

  test('moves to a new primary, closes connections to the old one and keeps those to the new one', async () => {
    const primary = new Primary(urls, probe);
    await primary.find();
    const before = await connected(primary);
    says = [new ReadOnlyServerError(), undefined, lost()];
    primary.doubt(primary.host);
    await expectMovedTo(primary, 1);
    await once(before, 'close');
    const after = await connected(primary);
    says = [new ReadOnlyServerError(), undefined, new ReadOnlyServerError()];
    primary.doubt(host(1));
    await expectMovedTo(primary, 1);
    expect(after.destroyed).toBe(false);
    after.destroy();
  });

  test('moves to a new primary if the old one hangs', async () => {
    const primary = new Primary(urls, probe);
    await primary.find();
    says = [never, new ReadOnlyServerError(), undefined];
    primary.doubt(primary.host);
    await expectMovedTo(primary, 2);
  });

  test('uses no host while two take writes, whichever answers first', async () => {
    for (const late of [0, 2]) {
      says = [undefined, new ReadOnlyServerError(), new ReadOnlyServerError()];
      const primary = new Primary(urls, probe);
      await primary.find();
      says = [undefined, new ReadOnlyServerError(), undefined];
      says[late] = sleep(20);
      primary.doubt(primary.host);
      const error = await primary.ready().catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(NoPrimaryError);
      expect((error as Error).message).toContain(`${host(0)} and ${host(2)} both take writes`);
      expect(isRetryable(error)).toBe(true);
      expect(primary.host).toBe(host(0));
      says = [new ReadOnlyServerError(), new ReadOnlyServerError(), undefined];
      await expectMovedTo(primary, 2);
    }
  });

  test('does not leave a current primary that answers later than another host', async () => {
    const primary = new Primary(urls, probe);
    await primary.find();
    for (let searches = 0; searches < 2; searches += 1) {
      says = [sleep(1000), new ReadOnlyServerError(), undefined];
      primary.doubt(primary.host);
      await expect(primary.ready()).rejects.toThrow('both take writes');
    }
    says = [undefined, new ReadOnlyServerError(), new ReadOnlyServerError()];
    await expectMovedTo(primary, 0);
  });

  test('keeps a healthy primary after a false alarm, even if another host is unreachable', async () => {
    const primary = new Primary(urls, probe);
    await primary.find();
    says = [undefined, new ReadOnlyServerError(), never];
    primary.doubt(primary.host);
    await expectMovedTo(primary, 0);
  });

  test('makes callers wait for a search after a failure, but not after a slow answer', async () => {
    const primary = new Primary(urls, probe);
    await primary.find();
    let answer = (): void => undefined;
    const answered = new Promise<void>((resolve) => (answer = resolve));
    says = [answered, new ReadOnlyServerError(), new ReadOnlyServerError()];
    primary.suspect(primary.host);
    await primary.ready();
    primary.doubt(primary.host);
    const ready = primary.ready();
    expect(await Promise.race([ready, sleep(20, 'it waits')])).toBe('it waits');
    answer();
    await ready;
    expect(primary.host).toBe(host(0));
  });

  test('moves to a new primary if the old one was only slow', async () => {
    const primary = new Primary(urls, probe);
    await primary.find();
    const before = await connected(primary);
    says = [new ReadOnlyServerError(), undefined, lost()];
    primary.suspect(primary.host);
    await once(before, 'close');
    await expectMovedTo(primary, 1);
  });

  test('reports the primary only when it changes', async () => {
    const told: string[] = [];
    const primary = new Primary(urls, probe, (moved) => told.push(moved));
    await primary.find();
    primary.doubt(host(0));
    await expectMovedTo(primary, 0);
    expect(told).toEqual([]);
    says = [new ReadOnlyServerError(), undefined, lost()];
    primary.doubt(host(0));
    await expectMovedTo(primary, 1);
    says = [lost(), lost(), lost()];
    primary.doubt(host(1));
    await expect(primary.ready()).rejects.toThrow(NoPrimaryError);
    says = [lost(), undefined, lost()];
    await expectMovedTo(primary, 1);
    expect(told).toEqual([host(1)]);
  });

  test('sets the primary’s host on the connection’s config, for the check of the certificate', async () => {
    const primary = new Primary(['mysql://u:p@[::1]:3307/db', ...urls.slice(1)], async (url) =>
      url.includes('3307') ? proof('the server') : Promise.reject(lost()),
    );
    const config = { host: 'another', port: 1 };
    await primary.find();
    primary
      .open({ config })
      .on('error', () => undefined)
      .destroy();
    expect(config).toEqual({ host: '::1', port: 3307 });
  });

  test('keeps its connections after a false alarm', async () => {
    const primary = new Primary(urls, probe);
    await primary.find();
    const socket = await connected(primary);
    primary.doubt(primary.host);
    await expectMovedTo(primary, 0);
    expect(socket.destroyed).toBe(false);
    socket.destroy();
  });

  test('runs one search for all concurrent callers, and none for a host that is no longer the primary', async () => {
    const primary = new Primary(urls, probe);
    await primary.find();
    asked = [0, 0, 0];
    says = [lost(), undefined, new ReadOnlyServerError()];
    for (let doubts = 0; doubts < 50; doubts += 1) primary.doubt(host(0));
    await Promise.all(Array.from({ length: 50 }, () => expectMovedTo(primary, 1)));
    primary.doubt(host(0));
    await expectMovedTo(primary, 1);
    expect(asked).toEqual([1, 1, 1]);
  });

  test('searches for a lost primary before the next connection, and finds it once it is back', async () => {
    const primary = new Primary(urls, probe);
    await primary.find();
    says = [lost(), new ReadOnlyServerError(), new ReadOnlyServerError()];
    primary.doubt(primary.host);
    const error = await primary.ready().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(NoPrimaryError);
    expect(isRetryable(error)).toBe(true);
    await expect(primary.ready()).rejects.toThrow(NoPrimaryError);
    says = [lost(), new ReadOnlyServerError(), undefined];
    await expectMovedTo(primary, 2);
  });

  test('limits the number of searches while there is no primary', async () => {
    const primary = new Primary(urls, probe);
    says = urls.map(lost);
    primary.doubt(primary.host);
    const from = performance.now();
    await Promise.all(
      Array.from({ length: 20 }, async () => {
        while ((asked[0] as number) < 8) await primary.ready().catch(() => undefined);
      }),
    );
    // Seven pauses of 100 ms at least. A timer may be a millisecond early.
    expect(performance.now() - from).toBeGreaterThan(7 * 98);
    expect(asked[0]).toBe(8);
  });
});

describe('refuseReadOnly', () => {
  test.each([0, '0', 'OFF'])('accepts a server whose read_only is %j', (value) => {
    expect(() => refuseReadOnly(value)).not.toThrow();
  });

  test.each([1, '1', 'ON', 'NO_LOCK', 'NO_LOCK_NO_ADMIN', undefined, null])(
    'refuses a server whose read_only is %j',
    (value) => {
      let thrown: unknown;
      try {
        refuseReadOnly(value);
      } catch (error) {
        thrown = error;
      }
      expect(isNotPrimary(thrown)).toBe(true);
      expect(isRetryable(thrown)).toBe(true);
    },
  );
});

describe('Primary behind one name', () => {
  const several = ['a', 'b'];
  const bothTakeWrites = (): string => `${host(0)} leads to several servers that take writes (a, b)`;
  const moves: string[] = [];
  const begin = async (): Promise<Primary> => {
    says = ['a'];
    moves.length = 0;
    const primary = new Primary(urls.slice(0, 1), probe, (where) => moves.push(where));
    await primary.find();
    primary.meet('a');
    return primary;
  };

  test('refuses to start if the name leads to several servers that take writes', async () => {
    says = [several];
    await expect(new Primary(urls.slice(0, 1), probe).find()).rejects.toThrow(bothTakeWrites());
    says = [several, new ReadOnlyServerError(), new ReadOnlyServerError()];
    await expect(new Primary(urls, probe).find()).rejects.toThrow(bothTakeWrites());
  });

  test('refuses to start if the name leads to one server first and then to another', async () => {
    const turns = ['a', 'b'];
    const inTurns = new Primary(urls.slice(0, 1), async () => proof(turns.shift() as string));
    await expect(inTurns.find()).rejects.toThrow(bothTakeWrites());
  });

  test('refuses a connection to another server, and uses that server once the name leads to it alone', async () => {
    const primary = await begin();
    const before = await connected(primary);
    says = ['b'];
    const begun = performance.now();
    expect(() => primary.meet('b')).toThrow(`${host(0)} led to server b, and before to a`);
    await primary.ready();
    expect(performance.now() - begun).toBeGreaterThan(1900);
    await once(before, 'close');
    primary.meet('b');
    expect(moves).toEqual([`server b at ${host(0)}`]);
  });

  test('goes on with the same server if the name leads to that alone again', async () => {
    const primary = await begin();
    const socket = await connected(primary);
    expect(() => primary.meet('b')).toThrow(ReadOnlyServerError);
    await primary.ready();
    primary.meet('a');
    expect(socket.destroyed).toBe(false);
    socket.destroy();
    expect(moves).toEqual([]);
  });

  test('uses none while the name leads to two servers that take writes, in one search or in turns', async () => {
    const primary = await begin();
    says = [['b', 'a']];
    expect(() => primary.meet('b')).toThrow(ReadOnlyServerError);
    const error = await primary.ready().catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ name: 'NoPrimaryError', message: expect.stringContaining('take writes (b, a)') });
    expect([isRetryable(error), isNotPrimary(error)]).toEqual([true, true]);
    const turns = ['b', 'b', 'a'];
    const inTurns = new Primary(urls.slice(0, 1), async () => proof(turns.shift() ?? 'a'));
    inTurns.meet('a');
    expect(() => inTurns.meet('b')).toThrow(ReadOnlyServerError);
    await expect(inTurns.ready()).rejects.toThrow('leads to several servers that take writes (b, a)');
    const begun = performance.now();
    await inTurns.ready();
    expect(performance.now() - begun).toBeGreaterThan(1900);
    expect(() => inTurns.meet('b')).toThrow(ReadOnlyServerError);
  });

  test('does not take the luck of one search for the end of a dispute', async () => {
    let searches = 0;
    const balanced = new Primary(urls.slice(0, 1), async () => {
      searches += 1;
      return searches % 2 === 1 ? proof('a', 'b') : proof('a', 'a');
    });
    balanced.meet('a');
    expect(() => balanced.meet('b')).toThrow(ReadOnlyServerError);
    for (let tries = 0; tries < 5; tries += 1) await expect(balanced.ready()).rejects.toThrow(bothTakeWrites());
    expect(searches).toBeGreaterThan(5);
  });

  test('follows a failover behind a name that leads to read-only servers as well', async () => {
    let searches = 0;
    const told: string[] = [];
    const mixed = new Primary(
      urls.slice(0, 1),
      async () => {
        searches += 1;
        if (searches % 2 === 0) throw new ReadOnlyServerError();
        return proof('b');
      },
      (where) => told.push(where),
    );
    mixed.meet('a');
    expect(() => mixed.meet('b')).toThrow(ReadOnlyServerError);
    await mixed.ready();
    mixed.meet('b');
    expect(told).toEqual([`server b at ${host(0)}`]);
  });
});

describe('Primary behind several names', () => {
  test('treats two names of one server as one server, and keeps the current name', async () => {
    const told: string[] = [];
    says = [new ReadOnlyServerError(), 'a', 'a'];
    const primary = new Primary(urls, probe, (where) => told.push(where));
    await primary.find();
    expect(primary.host).toBe(host(1));
    says = ['a', 'a', new ReadOnlyServerError()];
    primary.doubt(host(1));
    await expectMovedTo(primary, 1);
    expect(told).toEqual([]);
  });

  test('counts a host as soon as one of its connections has proved that it takes writes', async () => {
    const primary = new Primary(urls, async (url) => {
      if (url === urls[2]) throw new ReadOnlyServerError();
      if (url === urls[1]) return proof('server 1');
      await sleep(1200);
      return { server: 'server 0', others: sleep(1200, ['server 0']) };
    });
    primary.meet('server 0');
    primary.doubt(host(0));
    await expect(primary.ready()).rejects.toThrow(`${host(0)} and ${host(1)} both take writes`);
  });

  test('gives every other host its time from the first proof on, not from the start of the search', async () => {
    says = [lost(), sleep(700), sleep(1000)];
    const primary = new Primary(urls, probe);
    primary.doubt(host(0));
    await expect(primary.ready()).rejects.toThrow(`${host(1)} and ${host(2)} both take writes`);
  });
});
