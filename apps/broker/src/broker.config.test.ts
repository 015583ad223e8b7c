import { describe, expect, test } from 'vitest';
import { reachableHost, readBrokerConfig, shareOfWorker } from './broker.config.js';

const URL_SETTING = { ROWMQ_DATABASE_URL: 'mysql://rowmq:secret@127.0.0.1:3306/rowmq' };
const KEY = 'x'.repeat(16);

describe('the broker’s settings', () => {
  test('have defaults, except the database', () => {
    expect(readBrokerConfig(URL_SETTING)).toEqual({
      databaseUrl: URL_SETTING.ROWMQ_DATABASE_URL,
      databaseTls: undefined,
      databaseUntested: false,
      workers: 1,
      poolSize: 16,
      batchRequests: 1000,
      maxWaitingRequests: 5000,
      sizes: { bodyBytes: 4096, requestBytes: 4_194_304 },
      maxLongPolls: 10_000,
      slowMs: { reaper: 500, enqueues: 2000, dequeues: 5000 },
      slowHistoryLength: 5_000_000,
      slowLockWaits: 100,
      tracesUrl: undefined,
      tracesPercent: 100,
      metricsQueues: 200,
      host: '127.0.0.1',
      port: 8080,
      peerHost: '127.0.0.1',
      peerPort: 0,
      needsKeys: false,
      adminKey: undefined,
      failedAttempts: 100,
      trustedProxies: [],
      allowedHosts: [],
      operationsNeedKey: false,
      operationsPort: undefined,
      sqs: { account: '000000000000', region: undefined, publicUrl: undefined, secretKey: undefined },
      stopSeconds: 25,
    });
  });

  test('count as absent if they are empty', () => {
    expect(readBrokerConfig({ ...URL_SETTING, ROWMQ_ADMIN_KEY: '', ROWMQ_PORT: '', ROWMQ_HOST: '' })).toMatchObject({
      adminKey: undefined,
      port: 8080,
      host: '127.0.0.1',
    });
  });

  test.each(['127.0.0.1', '127.1.2.3', '::1', 'localhost'])('need no key on %s', (host) => {
    expect(readBrokerConfig({ ...URL_SETTING, ROWMQ_HOST: host }).host).toBe(host);
  });

  test.each(['0.0.0.0', '::', '10.0.0.1', '127.0.0.1.example.org', 'localhost.example.org', '128.0.0.1', '::2'])(
    'need a key on %s',
    (host) => {
      expect(() => readBrokerConfig({ ...URL_SETTING, ROWMQ_HOST: host })).toThrow(/Set ROWMQ_ADMIN_KEY/);
      expect(readBrokerConfig({ ...URL_SETTING, ROWMQ_HOST: host, ROWMQ_ADMIN_KEY: KEY }).adminKey).toBe(KEY);
    },
  );

  test('say whether calls need a key', () => {
    const needsKeys = (env: Record<string, string>): boolean => readBrokerConfig({ ...URL_SETTING, ...env }).needsKeys;
    expect(needsKeys({ ROWMQ_ADMIN_KEY: KEY })).toBe(true);
    expect(needsKeys({ ROWMQ_API_KEYS: 'required', ROWMQ_HOST: '0.0.0.0' })).toBe(true);
    expect(needsKeys({ ROWMQ_API_KEYS: 'none' })).toBe(false);
    expect(() => needsKeys({ ROWMQ_API_KEYS: 'none', ROWMQ_ADMIN_KEY: KEY })).toThrow(/Unset one of them/);
    expect(() => needsKeys({ ROWMQ_API_KEYS: 'none', ROWMQ_HOST: '0.0.0.0' })).toThrow(/other machines can reach/);
    expect(() => needsKeys({ ROWMQ_OPERATIONS: 'key' })).toThrow(/asks for no keys/);
    expect(() => needsKeys({ ROWMQ_OPERATIONS_PORT: '8080' })).toThrow(/Set it to another port/);
    expect(() => needsKeys({ ROWMQ_API_KEYS: 'yes' })).toThrow(/'required' or 'none'/);
  });

  test('accept a key of sixteen characters and no shorter one', () => {
    expect(() => readBrokerConfig({ ...URL_SETTING, ROWMQ_ADMIN_KEY: KEY.slice(1) })).toThrow(/at least 16/);
  });

  test.each([
    'a key with spaces in it',
    ' leading-space-1234',
    'tab\tin-the-middle',
    'schlüssel-schlüssel',
    `${KEY}\u0000`,
  ])('refuse a key that no client could send: %j', (key) => {
    expect(() => readBrokerConfig({ ...URL_SETTING, ROWMQ_ADMIN_KEY: key })).toThrow(
      /ROWMQ_ADMIN_KEY must have no spaces and only ASCII/,
    );
  });

  test('accept a key of all characters that a header can carry', () => {
    const key = Array.from({ length: 94 }, (_, index) => String.fromCharCode(0x21 + index)).join('');
    expect(readBrokerConfig({ ...URL_SETTING, ROWMQ_ADMIN_KEY: key }).adminKey).toBe(key);
  });

  test('name the proxies that are trusted, by address or network', () => {
    const trusted = (list: string): string[] =>
      readBrokerConfig({ ...URL_SETTING, ROWMQ_TRUSTED_PROXIES: list }).trustedProxies;
    expect(trusted('10.0.3.17,192.168.0.0/16,fd00::/8,::1')).toEqual([
      '10.0.3.17',
      '192.168.0.0/16',
      'fd00::/8',
      '::1',
    ]);
    for (const list of ['balancer', '10.0.0.0/33', '10.0.0.0/0', '::/129', '10.0.0.1,', '10.0.0.1, 10.0.0.2', 'true'])
      expect(() => trusted(list), list).toThrow(/ROWMQ_TRUSTED_PROXIES must be addresses or networks/);
  });

  test('choose the encryption of connections to the database', () => {
    expect(readBrokerConfig({ ...URL_SETTING, ROWMQ_DATABASE_TLS: 'require' }).databaseTls).toEqual({
      rejectUnauthorized: false,
      verifyIdentity: false,
    });
  });

  test.each(['0', '65', '-1', '2.5', 'all'])('refuse %s as a number of workers', (workers) => {
    expect(() => readBrokerConfig({ ...URL_SETTING, ROWMQ_WORKERS: workers })).toThrow(
      /ROWMQ_WORKERS must be a whole number from 1 to 64/,
    );
  });

  test('are shared out among workers, and each gets at least one connection for each verb', () => {
    const config = readBrokerConfig({ ...URL_SETTING, ROWMQ_WORKERS: '3', ROWMQ_MAX_LONG_POLLS: '2' });
    expect(shareOfWorker(config, 2)).toEqual({
      ...config,
      poolSize: 5,
      failedAttempts: 33,
      maxWaitingRequests: 1666,
      maxLongPolls: 1,
    });
    expect(shareOfWorker({ ...config, workers: 64 }, 64).poolSize).toBe(4);
  });

  test('give each worker a peer port of its own, and any free one by default', () => {
    const config = readBrokerConfig({ ...URL_SETTING, ROWMQ_WORKERS: '3', ROWMQ_PEER_PORT: '65533' });
    expect([1, 2, 3].map((number) => shareOfWorker(config, number).peerPort)).toEqual([65_533, 65_534, 65_535]);
    expect(shareOfWorker({ ...config, peerPort: 0 }, 3).peerPort).toBe(0);
    expect(() => readBrokerConfig({ ...URL_SETTING, ROWMQ_WORKERS: '3', ROWMQ_PEER_PORT: '65534' })).toThrow(
      /each of the 3 workers needs the next port. Set it to 65533 or less, or to 0/,
    );
  });

  test('offer peers the address of the API, unless another is given', () => {
    const env = { ...URL_SETTING, ROWMQ_ADMIN_KEY: KEY };
    expect(readBrokerConfig({ ...env, ROWMQ_HOST: '10.0.0.1' }).peerHost).toBe('10.0.0.1');
    expect(readBrokerConfig({ ...env, ROWMQ_HOST: '10.0.0.1', ROWMQ_PEER_HOST: 'broker-1' }).peerHost).toBe('broker-1');
  });

  test('offer peers an address that other machines reach if the broker listens on all', () => {
    const one = (address: string, family: 'IPv4' | 'IPv6', internal = false) =>
      ({ address, family, internal, netmask: '', mac: '', cidr: null, scopeid: 0 }) as never;
    const lo = [one('127.0.0.1', 'IPv4', true), one('::1', 'IPv6', true)];
    const eth0 = [one('fe80::1', 'IPv6'), one('2001:db8::1', 'IPv6'), one('10.1.2.3', 'IPv4')];
    expect(reachableHost('0.0.0.0', { lo, eth0 })).toBe('10.1.2.3');
    expect(reachableHost('::', { lo, eth0: eth0.slice(0, 2) })).toBe('2001:db8::1');
    expect(reachableHost('0.0.0.0', { lo })).toBe('127.0.0.1');
  });
});
