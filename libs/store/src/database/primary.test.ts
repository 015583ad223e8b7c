import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { isNotPrimary, isRetryable, ReadOnlyServerError } from './database-errors.js';
import { NoPrimaryError, Primary, refuseReadOnly } from './primary.js';

const servers: Server[] = [];
const accepted: Socket[] = [];
let urls: string[];
/**
 * Each host's reaction to a probe. `undefined` means that it takes writes. A promise delays that
 * answer until it resolves.
 */
let says: (Error | Promise<void> | undefined)[];
let asked: number[];

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

async function look(url: string): Promise<void> {
  const index = urls.indexOf(url);
  asked[index] = (asked[index] ?? 0) + 1;
  const answer = says[index];
  if (answer instanceof Promise) return answer;
  if (answer !== undefined) throw answer;
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

describe('the primary of several hosts', () => {
  test('is not looked for where there is one host only', () => {
    expect(Primary.of('mysql://u:p@a:3306/db')).toBeUndefined();
    expect(Primary.of('mysql://u:p@a:3306,b/db')?.host).toBe('a:3306');
  });

  test('is the one that takes writes, wherever it stands in the list', async () => {
    for (const index of [0, 1, 2]) {
      says = [0, 1, 2].map((each) => (each === index ? undefined : new ReadOnlyServerError()));
      const primary = new Primary(urls, look);
      await primary.find();
      expect(primary.host).toBe(host(index));
      const socket = await connected(primary);
      expect(socket.remotePort).toBe(Number(new URL(urls[index] as string).port));
      socket.destroy();
    }
  });

  test('is missing when no host takes writes: the error names each host and its reason, and no password', async () => {
    says = [new ReadOnlyServerError(), lost(), Object.assign(new Error('Access denied'), { errno: 1045 })];
    const error = await new Primary(urls, look).find().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(NoPrimaryError);
    expect((error as Error).message).toBe(
      `no host takes writes: ${host(0)} (the server is read-only), ${host(1)} (connect ECONNREFUSED), ${host(2)} (Access denied)`,
    );
    expect(isRetryable(error)).toBe(true);
    says = urls.map(() => Object.assign(new Error('Access denied'), { errno: 1045 }));
    expect(isRetryable(await new Primary(urls, look).find().catch((thrown: unknown) => thrown))).toBe(false);
  });

  test('cannot be two: a process does not start on them', async () => {
    says = [undefined, new ReadOnlyServerError(), undefined];
    await expect(new Primary(urls, look).find()).rejects.toThrow(`${host(0)} and ${host(2)} both take writes`);
  });

  test('is looked for when it is in doubt; connections to the one before are closed, those to the next stay', async () => {
    const primary = new Primary(urls, look);
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

  test('is taken where the one before hangs', async () => {
    const primary = new Primary(urls, look);
    await primary.find();
    says = [never, new ReadOnlyServerError(), undefined];
    primary.doubt(primary.host);
    await expectMovedTo(primary, 2);
  });

  test('is none of them while two take writes, whichever says so first: the one in doubt may be cut off, or the other have come back from the past', async () => {
    for (const late of [0, 2]) {
      says = [undefined, new ReadOnlyServerError(), new ReadOnlyServerError()];
      const primary = new Primary(urls, look);
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

  test('is not left for another because its answer comes late, also after both were heard', async () => {
    const primary = new Primary(urls, look);
    await primary.find();
    for (let searches = 0; searches < 2; searches += 1) {
      says = [sleep(1000), new ReadOnlyServerError(), undefined];
      primary.doubt(primary.host);
      await expect(primary.ready()).rejects.toThrow('both take writes');
    }
    says = [undefined, new ReadOnlyServerError(), new ReadOnlyServerError()];
    await expectMovedTo(primary, 0);
  });

  test('that was in doubt for nothing is used again, though another host cannot be reached', async () => {
    const primary = new Primary(urls, look);
    await primary.find();
    says = [undefined, new ReadOnlyServerError(), never];
    primary.doubt(primary.host);
    await expectMovedTo(primary, 0);
  });

  test('that is slow keeps nobody waiting while it is looked for; one that has failed does', async () => {
    const primary = new Primary(urls, look);
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

  test('is followed where the one before was only slow', async () => {
    const primary = new Primary(urls, look);
    await primary.find();
    const before = await connected(primary);
    says = [new ReadOnlyServerError(), undefined, lost()];
    primary.suspect(primary.host);
    await once(before, 'close');
    await expectMovedTo(primary, 1);
  });

  test('tells who it is whenever that changes, and only then', async () => {
    const told: string[] = [];
    const primary = new Primary(urls, look, (moved) => told.push(moved));
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

  test('is what a connection to it is told that it leads to, for the certificate to name', async () => {
    const primary = new Primary(['mysql://u:p@[::1]:3307/db', ...urls.slice(1)], async (url) =>
      url.includes('3307') ? undefined : Promise.reject(lost()),
    );
    const config = { host: 'another', port: 1 };
    await primary.find();
    primary
      .open({ config })
      .on('error', () => undefined)
      .destroy();
    expect(config).toEqual({ host: '::1', port: 3307 });
  });

  test('stays if it was in doubt for nothing', async () => {
    const primary = new Primary(urls, look);
    await primary.find();
    const socket = await connected(primary);
    primary.doubt(primary.host);
    await expectMovedTo(primary, 0);
    expect(socket.destroyed).toBe(false);
    socket.destroy();
  });

  test('is searched once for all who ask at the same time, and not for a doubt about one that is no longer it', async () => {
    const primary = new Primary(urls, look);
    await primary.find();
    asked = [0, 0, 0];
    says = [lost(), undefined, new ReadOnlyServerError()];
    for (let doubts = 0; doubts < 50; doubts += 1) primary.doubt(host(0));
    await Promise.all(Array.from({ length: 50 }, () => expectMovedTo(primary, 1)));
    primary.doubt(host(0));
    await expectMovedTo(primary, 1);
    expect(asked).toEqual([1, 1, 1]);
  });

  test('that is lost is asked for again before anybody connects, and found when it is back', async () => {
    const primary = new Primary(urls, look);
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

  test('is asked for a bounded number of times while it is lost', async () => {
    const primary = new Primary(urls, look);
    says = urls.map(lost);
    primary.doubt(primary.host);
    const until = performance.now() + 1000;
    await Promise.all(
      Array.from({ length: 20 }, async () => {
        while (performance.now() < until) await primary.ready().catch(() => undefined);
      }),
    );
    expect(asked[0]).toBeGreaterThan(1);
    expect(asked[0]).toBeLessThan(15);
  });
});

describe('what a server says of read_only', () => {
  test.each([0, '0', 'OFF'])('%j: it takes writes', (value) => {
    expect(() => refuseReadOnly(value)).not.toThrow();
  });

  test.each([1, '1', 'ON', 'NO_LOCK', 'NO_LOCK_NO_ADMIN', undefined, null])('%j: it does not', (value) => {
    let thrown: unknown;
    try {
      refuseReadOnly(value);
    } catch (error) {
      thrown = error;
    }
    expect(isNotPrimary(thrown)).toBe(true);
    expect(isRetryable(thrown)).toBe(true);
  });
});
