import { LIMITS } from '@rowmq/contract';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';

export interface Span {
  min: number;
  max: number;
}

/** Settings of a run. */
export interface SimulatorSettings {
  /** Undefined: the broker at the usual place if there is one, else one is started. */
  url: string | undefined;
  /** The broker to try when `url` is undefined. */
  defaultUrl: string;
  /** Always start a broker for this run. */
  start: boolean;
  apiKey: string | undefined;
  producers: number;
  consumers: number;
  seconds: number;
  batch: number;
  /** Messages per second of all producers together; undefined: as fast as they can. */
  rate: number | undefined;
  /** Producers wait while about so many messages are on the broker; 0: never. */
  maxBacklog: number;
  queues: number;
  /** Producers publish to one topic, to which all queues are subscribed. */
  topic: boolean;
  /** Groups of each queue, which is then an ordered one; 0: none. */
  groups: number;
  bodyBytes: Span;
  priorities: Span;
  leaseSeconds: number;
  waitSeconds: number;
  crashRate: number;
  slowRate: number;
  nackRate: number;
  expireRate: number;
  drainSeconds: number;
  /** Deadline of each request. */
  timeoutSeconds: number;
  maxMessages: number;
  keepQueues: boolean;
  seed: number;
  /** File for the report. */
  report: string | undefined;
}

/**
 * The command line is wrong, or asks for help. Commander has printed why. `exitCode` is 0 for help.
 */
export class UsageError extends Error {
  override readonly name = 'UsageError';

  constructor(
    message: string,
    readonly exitCode: number,
  ) {
    super(message);
  }
}

const MOST_WORKERS = 1000;
const USAGE = 2;

type Options = Omit<SimulatorSettings, 'defaultUrl'>;

/**
 * Reads the environment and the command line, without node and script. Throws {@link UsageError}.
 */
export function readSimulatorSettings(args: readonly string[], env: NodeJS.ProcessEnv): SimulatorSettings {
  const defaultUrl = `http://127.0.0.1:${env['ROWMQ_PORT'] ?? '8080'}`;
  const program = commandLine(defaultUrl);
  try {
    program.parse(args, { from: 'user' });
    const options = program.opts<Options>();
    if (options.start && options.url !== undefined) {
      program.error(
        'error: --start starts a broker of its own, so it cannot be combined with --url: leave one of them out',
      );
    }
    if (options.consumers === 0 && options.producers === 0) {
      program.error('error: without producers and consumers there is nothing to do: raise --producers or --consumers');
    }
    const { min, max } = options.priorities;
    if (options.groups > 0 && (min !== LIMITS.priorityDefault || max !== LIMITS.priorityDefault)) {
      program.error('error: a queue with groups has no priorities: leave out --groups or --priorities');
    }
    return { ...options, defaultUrl, apiKey: options.apiKey ?? env['ROWMQ_ADMIN_KEY'] };
  } catch (error) {
    if (error instanceof CommanderError) throw new UsageError(error.message, error.exitCode === 0 ? 0 : USAGE);
    throw error;
  }
}

function commandLine(defaultUrl: string): Command {
  const program = new Command('simulate')
    .description(
      'Drives a RowMQ broker with many producers and consumers. Consumers misbehave as told. ' +
        'The simulator records every message and every lease, and judges at the end whether RowMQ kept every guarantee.',
    )
    .usage('-- [options]        (as: npm run simulate -- --producers 8 --consumers 8 --seconds 30)')
    .addHelpText(
      'after',
      '\nExit codes: 0 every guarantee was kept; 1 a guarantee was broken; 2 wrong usage, no broker, or the run could not be judged.',
    )
    .allowExcessArguments(false)
    .showHelpAfterError('(--help lists the options)')
    .exitOverride();
  const options = [
    ...brokerOptions(defaultUrl),
    ...trafficOptions(),
    ...messageOptions(),
    ...faultOptions(),
    ...runOptions(),
  ];
  for (const each of options) program.addOption(each);
  return program;
}

function brokerOptions(defaultUrl: string): Option[] {
  return [
    option(
      '--url <url>',
      `broker to drive (default: ${defaultUrl}; without a broker there, the simulator starts one)`,
      url,
    ),
    flag('--start', 'start a broker with an empty database of its own, and stop it at the end'),
    new Option('--api-key <key>', 'API key (default: ROWMQ_ADMIN_KEY)'),
    option('--timeout-seconds <s>', 'deadline of a request, on top of its wait', whole(1, 600), 10),
  ];
}

function trafficOptions(): Option[] {
  return [
    option('--producers <n>', 'concurrent producers', whole(0, MOST_WORKERS), 8),
    option('--consumers <n>', 'concurrent consumers', whole(0, MOST_WORKERS), 8),
    option('--seconds <s>', 'how long to produce', whole(1, 86_400), 30),
    option('--batch <n>', 'messages per enqueue and at most per dequeue', whole(1, LIMITS.batch), 10),
    option(
      '--rate <n>',
      'limit of messages per second of all producers together (default: none)',
      whole(1, 10_000_000),
    ),
    option(
      '--max-backlog <n>',
      'producers wait while about so many messages are on the broker; 0: never',
      whole(0, 1e9),
      1000,
    ),
    option('--queues <n>', 'queues to spread the messages over', whole(1, 1000), 1),
    flag('--topic', 'publish to one topic to which all queues are subscribed, so that each gets every message'),
    option(
      '--groups <n>',
      'groups of each queue, whose messages must come in order; 0: queues without ordering',
      whole(0, 1_000_000),
      0,
    ),
  ];
}

function messageOptions(): Option[] {
  return [
    option('--body-bytes <min-max>', 'sizes of the bodies', span(0, LIMITS.bodyBytesMost), { min: 64, max: 1024 }),
    option('--priorities <min-max>', 'priorities of the messages', span(0, LIMITS.priorityMax), { min: 4, max: 4 }),
    option('--lease-seconds <s>', 'length of a lease', whole(1, LIMITS.leaseSeconds), 3),
    option('--wait-seconds <s>', 'how long a dequeue waits for messages', whole(0, LIMITS.waitSeconds), 1),
  ];
}

function faultOptions(): Option[] {
  return [
    option(
      '--crash-rate <share>',
      'share of dequeues whose consumer vanishes with the leases, or hangs up during the wait',
      share,
      0,
    ),
    option(
      '--slow-rate <share>',
      'share of dequeues handled for longer than the lease lasts; half of them extend it',
      share,
      0,
    ),
    option('--nack-rate <share>', 'share of messages that consumers nack, with or without a delay', share, 0),
    option('--expire-rate <share>', 'share of messages that expire after 1 to 3 seconds', share, 0),
  ];
}

function runOptions(): Option[] {
  return [
    option(
      '--drain-seconds <s>',
      'how long consumers may take to empty the queues after the producers stopped',
      whole(0, 86_400),
      60,
    ),
    option(
      '--max-messages <n>',
      'limit of messages to remember, about 750 bytes each; producing stops there',
      whole(1, 50_000_000),
      1_000_000,
    ),
    flag('--keep-queues', 'leave the queues on the broker; done anyway when a guarantee was broken'),
    option('--seed <n>', 'makes sizes, contents and faults the same again', whole(0, 2 ** 31 - 1), 1),
    new Option('--report <file>', 'write the settings, all measurements and the verdict as JSON'),
  ];
}

function flag(flags: string, description: string): Option {
  return new Option(flags, description).default(false);
}

function option<T>(flags: string, description: string, parse: (text: string) => T, defaultValue?: T): Option {
  const made = new Option(flags, description).argParser(parse);
  if (defaultValue === undefined) return made;
  return isSpan(defaultValue)
    ? made.default(defaultValue, `${defaultValue.min}-${defaultValue.max}`)
    : made.default(defaultValue);
}

function isSpan(value: unknown): value is Span {
  return typeof value === 'object' && value !== null && 'min' in value && 'max' in value;
}

const whole = (min: number, max: number) => (text: string) => {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < min || value > max) {
    throw new InvalidArgumentError(`It must be a whole number from ${min} to ${max}.`);
  }
  return value;
};

const span = (min: number, max: number) => (text: string) => {
  const [from, to = from, ...rest] = text.split('-').map((part) => (/^\d+$/.test(part) ? Number(part) : Number.NaN));
  if (from === undefined || to === undefined || rest.length > 0 || !(from >= min && from <= to && to <= max)) {
    throw new InvalidArgumentError(`It must be two whole numbers from ${min} to ${max}, such as ${min}-${max}.`);
  }
  return { min: from, max: to };
};

function share(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value >= 0 && value <= 1)) {
    throw new InvalidArgumentError('It must be a number from 0 to 1.');
  }
  return value;
}

function url(text: string): string {
  const parsed = URL.canParse(text) ? new URL(text) : undefined;
  if (parsed?.protocol !== 'http:' && parsed?.protocol !== 'https:') {
    throw new InvalidArgumentError('It must be a URL such as http://127.0.0.1:8080.');
  }
  return text;
}
