import { chmodSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readConnection } from './cli.config.js';
import { readProfiles, writeProfiles } from './profiles.js';

let folder: string;
let file: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'rowmq-config-'));
  file = join(folder, 'sub', 'config.json');
  writeProfiles(file, {
    default: 'test',
    profiles: { test: { url: 'http://test:1', key: 'k-test' }, live: { url: ['http://a:1', 'http://b:1'] } },
  });
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const env = (more: Record<string, string> = {}): NodeJS.ProcessEnv => ({ ROWMQ_CONFIG: file, ...more });

describe('the broker of a command', () => {
  it('comes from --url, then --profile, then the environment, then the default profile', () => {
    const both = env({ ROWMQ_URL: 'http://env:1,http://env:2', ROWMQ_KEY: 'k-env' });
    expect(readConnection({ url: 'http://option:1' }, both)).toMatchObject({ url: ['http://option:1'], key: 'k-env' });
    expect(readConnection({ profile: 'test' }, both)).toMatchObject({ url: 'http://test:1', key: 'k-test' });
    expect(readConnection({}, both)).toMatchObject({ url: ['http://env:1', 'http://env:2'], key: 'k-env' });
    expect(readConnection({}, env({ ROWMQ_PROFILE: 'live' }))).toMatchObject({ url: ['http://a:1', 'http://b:1'] });
    expect(readConnection({}, env())).toMatchObject({ url: 'http://test:1', key: 'k-test' });
    expect(readConnection({}, { ROWMQ_CONFIG: join(folder, 'none') })).toMatchObject({ url: 'http://127.0.0.1:8080' });
  });

  it('never gets the key of another one', () => {
    expect(readConnection({ profile: 'live' }, env({ ROWMQ_KEY: 'k-env' })).key).toBeUndefined();
    expect(readConnection({ url: 'http://option:1' }, env()).key).toBeUndefined();
  });

  it('is not guessed from a profile that does not exist, or beside --url', () => {
    expect(() => readConnection({ profile: 'constructor' }, env())).toThrow(/no profile 'constructor'.*test, live/);
    expect(() => readConnection({ profile: 'test', url: 'http://x:1' }, env())).toThrow(/not both/);
  });
});

describe('the file of profiles', () => {
  it('is written for its owner only', () => expect(statSync(file).mode & 0o777).toBe(0o600));

  it.each([0o640, 0o604, 0o620, 0o602])('is refused with mode %o', (mode) => {
    chmodSync(file, mode);
    expect(() => readProfiles(file)).toThrow(/chmod 600/);
  });

  it.each(['{', '{"profile":{}}', '{"profiles":{"a b":{"url":"http://x:1"}}}', '{"profiles":{"a":{"key":"k"}}}'])(
    'is refused if it is %s',
    (text) => {
      writeFileSync(file, text);
      expect(() => readProfiles(file)).toThrow(/is not/);
    },
  );
});
