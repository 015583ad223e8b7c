import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { readSimulatorSettings, UsageError } from './simulator.config.js';

describe('readSimulatorSettings', () => {
  let errors = '';
  beforeEach(() => {
    errors = '';
    const write = (text: string | Uint8Array) => {
      errors += text.toString();
      return true;
    };
    vi.spyOn(process.stderr, 'write').mockImplementation(write);
    vi.spyOn(process.stdout, 'write').mockImplementation(write);
  });
  afterEach(() => vi.restoreAllMocks());

  it('has a default for everything', () => {
    const settings = readSimulatorSettings([], {});
    expect(settings.url).toBeUndefined();
    expect(settings).toMatchObject({
      defaultUrl: 'http://127.0.0.1:8080',
      apiKey: undefined,
      producers: 8,
      consumers: 8,
      batch: 10,
      bodyBytes: { min: 64, max: 1024 },
      crashRate: 0,
    });
  });

  it('reads port and key from the environment, but prefers a key on the command line', () => {
    const env = { ROWMQ_PORT: '9000', ROWMQ_ADMIN_KEY: 'from-env' };
    expect(readSimulatorSettings([], env)).toMatchObject({ defaultUrl: 'http://127.0.0.1:9000', apiKey: 'from-env' });
    expect(readSimulatorSettings(['--api-key', 'given'], env)).toMatchObject({ apiKey: 'given' });
  });

  it('reads numbers, shares and spans', () => {
    const args = ['--producers', '16', '--crash-rate', '0.01', '--body-bytes', '0-4096', '--priorities', '3'];
    expect(readSimulatorSettings(args, {})).toMatchObject({
      producers: 16,
      crashRate: 0.01,
      bodyBytes: { min: 0, max: 4096 },
      priorities: { min: 3, max: 3 },
    });
  });

  it.each([
    [['--producers', 'many'], /whole number from 0 to 1000/],
    [['--batch', '101'], /whole number from 1 to 100/],
    [['--crash-rate', '1.5'], /number from 0 to 1/],
    [['--crash-rate', ''], /number from 0 to 1/],
    [['--body-bytes', '64-262145'], /from 0 to 262144/],
    [['--body-bytes', '64-32'], /from 0 to 262144/],
    [['--url', 'localhost:8080'], /must be a URL/],
    [['--start', '--url', 'http://127.0.0.1:1'], /cannot be combined/],
    [['--producers', '0', '--consumers', '0'], /nothing to do/],
    [['--groups', '10', '--priorities', '0-9'], /has no priorities/],
    [['--speed', '3'], /unknown option '--speed'/],
    [['fast'], /too many arguments/],
  ])('refuses %j with exit code 2 and says why', (args, why) => {
    expect(() => readSimulatorSettings(args, {})).toThrow(expect.objectContaining({ name: 'UsageError', exitCode: 2 }));
    expect(errors).toMatch(why);
  });

  it('explains every option for --help, with exit code 0', () => {
    expect(() => readSimulatorSettings(['--help'], {})).toThrow(expect.objectContaining({ exitCode: 0 }));
    expect(() => readSimulatorSettings(['--help'], {})).toThrow(UsageError);
    const options = Object.keys(readSimulatorSettings([], {})).filter((name) => name !== 'defaultUrl');
    options.push('url', 'rate', 'report');
    for (const name of options) {
      expect(errors).toContain(`--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`);
    }
  });
});
