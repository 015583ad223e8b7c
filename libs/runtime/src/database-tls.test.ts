import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { rootCertificates } from 'node:tls';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { DATABASE_SETTINGS, type DatabaseTls, databaseTls } from './database-tls.js';
import { readSettings, SettingsError } from './settings.js';

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'rowmq-tls-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

function read(env: Record<string, string>): DatabaseTls | undefined {
  return databaseTls(readSettings(DATABASE_SETTINGS, { ROWMQ_DATABASE_URL: 'mysql://u:p@h/db', ...env }));
}

async function file(text: string): Promise<string> {
  const path = join(folder, 'ca.pem');
  await writeFile(path, text);
  return path;
}

describe('the encryption of connections to the database', () => {
  test.each([
    [{}, undefined],
    [{ ROWMQ_DATABASE_TLS: '', ROWMQ_DATABASE_TLS_CA: '' }, undefined],
    [{ ROWMQ_DATABASE_TLS: 'off' }, undefined],
    [{ ROWMQ_DATABASE_TLS: 'require' }, { rejectUnauthorized: false, verifyIdentity: false }],
    [{ ROWMQ_DATABASE_TLS: 'verify-ca' }, { rejectUnauthorized: true, verifyIdentity: false }],
    [{ ROWMQ_DATABASE_TLS: 'verify' }, { rejectUnauthorized: true, verifyIdentity: true }],
  ])('follows from %j', (env, tls) => {
    expect(read(env)).toEqual(tls);
  });

  test('trusts the certificates of a file, all of them and nothing else in it', async () => {
    const [one, other] = rootCertificates as [string, string];
    const path = await file(`a comment\n${one}\nanother\n${other}\n`);
    const ca = read({ ROWMQ_DATABASE_TLS: 'verify', ROWMQ_DATABASE_TLS_CA: path })?.ca;
    expect(ca?.replaceAll('\n', '')).toBe(`${one}${other}`.replaceAll('\n', ''));
  });

  test.each(['on', 'true', 'REQUIRE', 'verify_ca', 'preferred'])('has no mode %s', (mode) => {
    expect(() => read({ ROWMQ_DATABASE_TLS: mode })).toThrow(
      'ROWMQ_DATABASE_TLS must be one of off, require, verify-ca, verify',
    );
  });

  test('needs a readable file of valid certificates, and reports its fault together with the others', async () => {
    const missing = { ROWMQ_DATABASE_TLS: 'verify', ROWMQ_DATABASE_TLS_CA: join(folder, 'missing.pem') };
    expect(() => read(missing)).toThrow(SettingsError);
    expect(() => read({ ...missing, ROWMQ_DATABASE_URL: 'nonsense' })).toThrow(
      /ROWMQ_DATABASE_URL must look like[^]*ROWMQ_DATABASE_TLS_CA must be a file of certificates in PEM form: ENOENT.*missing\.pem/,
    );
    const [root] = rootCertificates as [string];
    const broken = `${root}\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n`;
    for (const text of ['', 'no certificate', broken]) {
      const path = await file(text);
      expect(() => read({ ROWMQ_DATABASE_TLS: 'verify', ROWMQ_DATABASE_TLS_CA: path })).toThrow(
        /ROWMQ_DATABASE_TLS_CA must be a file of certificates in PEM form: ./,
      );
    }
  });

  test.each(['off', 'require'])('refuses a file of certificates in mode %s, which trusts nobody', async (mode) => {
    const path = await file(rootCertificates[0] as string);
    expect(() => read({ ROWMQ_DATABASE_TLS: mode, ROWMQ_DATABASE_TLS_CA: path })).toThrow(
      `ROWMQ_DATABASE_TLS=${mode} nobody checks the server's certificate. Set ROWMQ_DATABASE_TLS to verify or verify-ca.`,
    );
  });

  test.each(['mysql://u:p@10.0.0.1/db', 'mysql://u:p@[::1]:3306/db', 'mysql://u:p@a,10.0.0.1/db'])(
    'verifies names, of which %s lacks one',
    (url) => {
      expect(() => read({ ROWMQ_DATABASE_URL: url, ROWMQ_DATABASE_TLS: 'verify' })).toThrow(
        /(?:10\.0\.0\.1|::1) in ROWMQ_DATABASE_URL is an address\. Use the name/,
      );
      expect(read({ ROWMQ_DATABASE_URL: url, ROWMQ_DATABASE_TLS: 'verify-ca' })?.rejectUnauthorized).toBe(true);
    },
  );
});
