import { beforeEach, describe, expect, test, vi } from 'vitest';
import { GroupCare } from './group-care.js';
import { GroupServer, type MemberState } from './group-server.js';

/** A server that says what it is told to say, and remembers what was asked of it. */
class FakeServer extends GroupServer {
  says: Partial<MemberState> | Error = {};
  readonly done: string[] = [];
  probes = 0;

  constructor(readonly number: number) {
    super(`server ${number}`, `mysql://nobody@127.0.0.1:${number}/mysql`);
  }

  override async probe(): Promise<MemberState> {
    this.probes += 1;
    if (this.says instanceof Error) throw this.says;
    return {
      state: 'OFFLINE',
      isPrimary: false,
      readOnly: true,
      hasMajority: true,
      uuid: `uuid-${this.number}`,
      members: [''],
      online: 0,
      transactions: '',
      ...this.says,
    };
  }

  override async join(): Promise<void> {
    this.done.push('join');
  }

  override async bootstrap(): Promise<void> {
    this.done.push('bootstrap');
  }

  /** Transactions are letters here. */
  override async isSubset(these: string, those: string): Promise<boolean> {
    return these.split('').every((letter) => those.includes(letter));
  }
}

const ALL = ['uuid-1', 'uuid-2', 'uuid-3'];
const gone = new Error('connect ECONNREFUSED');

let servers: [FakeServer, FakeServer, FakeServer];
let lines: string[];
let care: GroupCare;

beforeEach(() => {
  servers = [new FakeServer(1), new FakeServer(2), new FakeServer(3)];
  lines = [];
  care = new GroupCare(servers, (line) => void lines.push(line));
});

function online(members: readonly string[], more: Partial<MemberState> = {}): Partial<MemberState> {
  return { state: 'ONLINE', members: [...members], online: members.length, ...more };
}

function done(): string[] {
  return servers.flatMap(({ number, done: did }) => did.map((what) => `${what} ${number}`));
}

describe('care for a group', () => {
  test('leaves a group alone of which all say that all are in it, and knows its primary', async () => {
    servers[0].says = online(ALL);
    servers[1].says = online(ALL, { isPrimary: true, readOnly: false });
    servers[2].says = online(ALL);
    expect(await care.heal()).toBe(true);
    expect(await care.primary()).toBe(servers[1]);
    expect(lines).toEqual(['The primary is server 2.']);
    expect(done()).toEqual([]);
  });

  test('does not take a group for whole while one of them, who just woke, still believes what it knew', async () => {
    servers[0].says = online(ALL, { isPrimary: true, readOnly: false });
    servers[1].says = online(['uuid-2', 'uuid-3'], { isPrimary: true, readOnly: false });
    servers[2].says = online(['uuid-2', 'uuid-3']);
    expect(await care.whole()).toBe(false);
  });

  test.each(['OFFLINE', 'ERROR'] as const)('takes a server that is %s into the group again', async (state) => {
    servers[0].says = online(['uuid-1', 'uuid-2'], { isPrimary: true, readOnly: false });
    servers[1].says = online(['uuid-1', 'uuid-2']);
    servers[2].says = { state };
    expect(await care.heal()).toBe(false);
    expect(done()).toEqual(['join 3']);
  });

  test('lets the group exclude what a restarted server was before: to knock would be a sign of life', async () => {
    servers[0].says = online(ALL);
    servers[1].says = online(ALL);
    expect(await care.heal()).toBe(false);
    expect(done()).toEqual([]);
  });

  test('begins a group that is gone anew, from the server that has every transaction', async () => {
    servers[0].says = { transactions: 'ab' };
    servers[1].says = { transactions: 'abc', state: 'ERROR' };
    servers[2].says = { transactions: 'b' };
    await care.heal();
    expect(done()).toEqual(['bootstrap 2']);
  });

  test('begins it from the same server whoever does it, in whatever order he knows them', async () => {
    const [first, second, third] = servers;
    await new GroupCare([third, first, second]).heal();
    await new GroupCare([second, third, first]).heal();
    expect(done()).toEqual(['bootstrap 1', 'bootstrap 1']);
  });

  test('does not begin it anew while a server cannot be asked: that may be the one with every transaction', async () => {
    servers[0].says = gone;
    expect(await care.heal()).toBe(false);
    expect(done()).toEqual([]);
  });

  test('does not begin it anew beside a server that waits for the others to be back', async () => {
    servers[0].says = online(ALL, { isPrimary: true, readOnly: false, hasMajority: false });
    expect(await care.heal()).toBe(false);
    expect(await care.primary()).toBeUndefined();
    expect(done()).toEqual([]);
  });

  test('leaves a group whose servers each lack something to people', async () => {
    servers[0].says = { transactions: 'ab' };
    servers[1].says = { transactions: 'ac' };
    await expect(care.heal()).rejects.toThrow('Each server has transactions that another lacks');
    expect(done()).toEqual([]);
  });

  test('tells the same failure once for as long as it lasts', async () => {
    servers[0].says = { transactions: 'ab' };
    servers[1].says = { transactions: 'ac' };
    const stop = new AbortController();
    const keeping = care.keepTogether(stop.signal);
    await vi.waitUntil(() => servers[0].probes >= 3);
    stop.abort();
    await keeping;
    expect(lines).toHaveLength(1);
  });
});
