import { copyFile, mkdtemp, readFile, rm } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DatabaseTls } from '@rowmq/runtime';
import { type EmbeddedServer, GroupServer } from '@rowmq/mysql-server';
import { Database, openDataSource, pendingMigrations, StartupError } from '@rowmq/store';
import { type Connection, createConnection, type RowDataPacket } from 'mysql2/promise';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { Api } from '../support/api.js';
import { type Certificates, makeCertificates } from '../support/certificates.js';
import { runEntry, startEntry } from '../support/commands.js';
import { freePort, startApp } from '../support/processes.js';
import { isFirstKind, startServer, testServer } from '../support/servers.js';
import { eventually } from '../support/wait.js';

const PASSWORD = 'rowmq-over-tls';
/** The name in the server's certificate. */
const HOST = 'localhost';
/** A host that the certificate does not name. Nothing listens at its port 1. */
const OTHER_HOST = hostname();

const isMySql = testServer().kind === 'mysql';
let folder: string;
let right: Certificates;
let wrong: Certificates;
/** The files that the server reads. */
let inUse: Certificates;
let server: EmbeddedServer;
let admin: Connection;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'rowmq-encrypted-'));
  right = await makeCertificates(folder, HOST);
  wrong = await makeCertificates(folder, 'elsewhere.example');
  inUse = { ca: join(folder, 'ca.pem'), cert: join(folder, 'cert.pem'), key: join(folder, 'key.pem') };
  await install(right);
  server = await startServer({
    dataDir: folder,
    extraArguments: [
      `--ssl-ca=${inUse.ca}`,
      `--ssl-cert=${inUse.cert}`,
      `--ssl-key=${inUse.key}`,
      // The administrator must reach the servers of a group as well.
      ...(isMySql ? ['--plugin-load-add=group_replication.so'] : []),
    ],
  });
  admin = await createConnection({ uri: server.url });
  await admin.query(`CREATE USER app@'127.0.0.1' IDENTIFIED BY '${PASSWORD}' REQUIRE SSL`);
  await admin.query(`GRANT ALL ON *.* TO app@'127.0.0.1'`);
  await admin.query(`CREATE USER plain@'127.0.0.1' IDENTIFIED BY '${PASSWORD}'`);
  await admin.query(`GRANT ALL ON rowmq.* TO plain@'127.0.0.1'`);
});
afterAll(async () => {
  admin?.destroy();
  await server?.stop();
  await rm(folder, { recursive: true, force: true });
});
beforeEach(async () => {
  await admin.query('SET GLOBAL require_secure_transport = OFF');
});

/** The URL of a user whom the server accepts over TLS only. */
const url = (hosts = `${HOST}:${server.port}`, user = 'app'): string => `mysql://${user}:${PASSWORD}@${hosts}/rowmq`;

const REQUIRE: DatabaseTls = { rejectUnauthorized: false, verifyIdentity: false };

async function verify({ ca }: Certificates, verifyIdentity = true): Promise<DatabaseTls> {
  return { rejectUnauthorized: true, verifyIdentity, ca: await readFile(ca, 'utf8') };
}

async function install(certificates: Certificates): Promise<void> {
  for (const file of ['ca', 'cert', 'key'] as const) await copyFile(certificates[file], inUse[file]);
}

/** Replaces the certificate of the running server. */
async function reload(certificates: Certificates): Promise<void> {
  await install(certificates);
  await admin.query(isMySql ? 'ALTER INSTANCE RELOAD TLS' : 'FLUSH SSL');
}

/** The session's cipher; empty if it is not encrypted. */
async function cipher(address: string, tls?: DatabaseTls): Promise<string> {
  const dataSource = await openDataSource({ url: address, tls, poolSize: 1 });
  try {
    const [row] = await new Database(dataSource).read<{ Value: string }>(`SHOW SESSION STATUS LIKE 'Ssl_cipher'`);
    return String(row?.Value);
  } finally {
    await dataSource.destroy();
  }
}

async function refusal(address: string, tls?: DatabaseTls): Promise<string> {
  const error = await cipher(address, tls).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(StartupError);
  return (error as Error).message;
}

describe('a connection to the database', () => {
  test('is not encrypted unless the setting asks for it', async () => {
    expect(await cipher(url(undefined, 'plain'))).toBe('');
  });

  test('is encrypted when required, whatever signed the certificate and whatever it names', async () => {
    expect(await cipher(url(), REQUIRE)).toMatch(/^\w{5,}/);
    expect(await cipher(url(`127.0.0.1:${server.port}`), REQUIRE)).toMatch(/^\w{5,}/);
  });

  test('is verified: a trusted authority must sign the certificate, and it must name the host', async () => {
    expect(await cipher(url(), await verify(right))).toMatch(/^\w{5,}/);
    expect(await refusal(url(), await verify(wrong))).toMatch(
      /^Cannot use the database at localhost:\d+\/rowmq: .*certificate.*\. Check the server's certificate, ROWMQ_DATABASE_TLS_CA and ROWMQ_DATABASE_TLS\.$/,
    );
    // The system does not trust it either.
    expect(await refusal(url(), { rejectUnauthorized: true, verifyIdentity: true })).toMatch(/certificate/);
  });

  test('is verified by the authority alone, if the setting asks for that', async () => {
    const address = url(`127.0.0.1:${server.port}`);
    expect(await cipher(address, await verify(right, false))).toMatch(/^\w{5,}/);
    expect(await refusal(address, await verify(wrong, false))).toMatch(/certificate/);
  });

  test('is verified for the host in use, not for the first in the list, and every host is probed over it', async () => {
    const hosts = `${OTHER_HOST}:1,${HOST}:${server.port}`;
    expect(await cipher(url(hosts), await verify(right))).toMatch(/^\w{5,}/);
    expect(await refusal(url(hosts), await verify(wrong))).toMatch(/localhost:\d+ \(.*certificate.*\)/);
  });

  test('refuses a certificate of another name', async () => {
    await reload(wrong);
    try {
      expect(await refusal(url(), await verify(wrong))).toMatch(/elsewhere\.example.*ROWMQ_DATABASE_TLS/);
      expect(await cipher(url(), await verify(wrong, false))).toMatch(/^\w{5,}/);
    } finally {
      await reload(right);
    }
  });

  test('says what to set when the server requires encryption, and when it offers none', async () => {
    expect(await refusal(url())).toMatch(/Access denied.*Set ROWMQ_DATABASE_TLS to require, verify-ca or verify\.$/);
    await admin.query('SET GLOBAL require_secure_transport = ON');
    expect(await refusal(url(undefined, 'plain'))).toMatch(/Set ROWMQ_DATABASE_TLS to require, verify-ca or verify\.$/);
    expect(await cipher(url(undefined, 'plain'), REQUIRE)).toMatch(/^\w{5,}/);
  });

  test.runIf(isMySql)('is verified by the certificates that MySQL makes for itself', async () => {
    const shared = await createConnection({ uri: testServer().url });
    const [[row]] = await shared.query<RowDataPacket[]>('SELECT @@datadir AS folder');
    await shared.end();
    const ca = join(String(row?.['folder']), 'ca.pem');
    const tls = { rejectUnauthorized: true, verifyIdentity: false, ca: await readFile(ca, 'utf8') };
    expect(await cipher(testServer().url, tls)).toMatch(/^\w{5,}/);
  });

  test.runIf(!isMySql)(
    'is refused by a server without a certificate, and the error says what the server lacks',
    async () => {
      expect(await refusal(testServer().url, REQUIRE)).toMatch(
        /Give the server a certificate.*ROWMQ_DATABASE_TLS=off\.$/,
      );
    },
  );

  test.runIf(isMySql)('is also encrypted for the administrator of a group', async () => {
    const address = url();
    expect(await new GroupServer('one', address, await verify(right)).probe()).toMatchObject({ state: 'OFFLINE' });
    await expect(new GroupServer('one', address).probe()).rejects.toThrow('Access denied');
    await expect(new GroupServer('one', address, await verify(wrong)).probe()).rejects.toThrow(/certificate/);
  });
});

// The settings reach the store in the same way on every kind. The tests above check the store.
describe.runIf(isFirstKind())('processes on a server that accepts encrypted connections only', () => {
  const settings = (): Record<string, string> => ({
    ROWMQ_DATABASE_URL: url(`${OTHER_HOST}:1,${HOST}:${server.port}`),
    ROWMQ_DATABASE_TLS: 'verify',
    ROWMQ_DATABASE_TLS_CA: right.ca,
  });

  beforeEach(async () => {
    await admin.query('SET GLOBAL require_secure_transport = ON');
  });

  test('migrate it, run on it, and say that it is encrypted', async () => {
    expect(await runEntry('migrate', settings())).toMatchObject({ code: 0, stderr: '' });
    expect(await pendingMigrations(url(), await verify(right))).toEqual([]);

    const port = String(await freePort());
    const broker = await startApp('broker', { ...settings(), ROWMQ_PORT: port });
    const reaper = await startApp('reaper', settings());
    for (const process of [broker, reaper])
      expect(process.output()).toMatch(
        /database \S+:1,localhost:\d+\/rowmq: (?:MySQL|MariaDB) [\d.]+, encrypted with \w+; the primary is localhost/,
      );
    const queue = new Api(`http://127.0.0.1:${port}`).queue('encrypted');
    await queue.put();
    const [id] = await queue.enqueue('over TLS');
    expect((await queue.dequeueOne()).id).toBe(id);
    await Promise.all([broker.stop(), reaper.stop()]);
  });

  test('run under npm start', async () => {
    const port = String(await freePort());
    const launcher = startEntry('start', { ...settings(), ROWMQ_PORT: port });
    const api = new Api(`http://127.0.0.1:${port}`);
    try {
      const isReady = async () => (await api.get('/health/ready').catch(() => undefined))?.status === 200;
      await eventually('the broker is ready', isReady, 40_000);
      await eventually('the reaper works', async () => (await api.metric('rowmq_reaper_leader')) === 1, 40_000);
    } finally {
      launcher.stop();
    }
    const { code, stdout } = await launcher.ended;
    expect(code).toBe(0);
    expect(stdout.match(/encrypted with \w+; the primary is localhost/g)).toHaveLength(2);
  });

  test('say what to set without it', async () => {
    for (const entry of ['migrate', 'start'] as const) {
      const { code, stderr } = await runEntry(entry, {
        ...settings(),
        ROWMQ_PORT: String(await freePort()),
        ROWMQ_DATABASE_TLS: '',
        ROWMQ_DATABASE_TLS_CA: '',
      });
      expect({ entry, code }).toEqual({ entry, code: 1 });
      expect(stderr).toMatch(
        /^Cannot use the database at .*Set ROWMQ_DATABASE_TLS to require, verify-ca or verify\.\n$/,
      );
    }
  });
});
