import { spawn } from 'node:child_process';
import { ROOT } from '../harness/rig.js';

/** Size and length of the load. */
export interface LoadOptions {
  seconds: number;
  /** Messages a second. */
  rate: number;
  queues: number;
}

/** How a simulator ended. */
export interface SimulatorEnd {
  /** 0: every guarantee was kept; 1: one was broken; 2: it could not be judged. */
  code: number;
  output: string;
}

/** Faults, each frequent enough to be in every sample. */
const FAULTS = '--crash-rate 0.01 --slow-rate 0.02 --nack-rate 0.05 --expire-rate 0.05 --lease-seconds 3'.split(' ');
const SHAPE = '--producers 4 --consumers 8 --batch 5 --body-bytes 64-1024 --priorities 3-5'.split(' ');
/** Room in the ledger, as a multiple of the messages that the rate makes. */
const LEDGER_ROOM = 1.2;

/** Heap of the simulator's process: for each message, and for the rest. */
const MEGABYTES_PER_MESSAGE = 0.001;
const BASE_MEGABYTES = 512;

/** The simulator prints this when its producers begin. */
const PRODUCING = 'producing …\n';
/** The simulator prints this before its verdict. */
const JUDGING = 'judging …\n';
/** The verdict is at the end. */
const MOST_OUTPUT = 20_000;

/**
 * Lets the simulator drive a broker, in a process of its own. Its ledger judges at the end whether
 * RowMQ kept every guarantee. Returns when the producers begin: a busy machine may need seconds to
 * start the process.
 */
export async function startSimulator(url: string, load: LoadOptions): Promise<{ ended: Promise<SimulatorEnd> }> {
  let begin: () => void = () => undefined;
  const begun = new Promise<void>((resolve) => (begin = resolve));
  const ended = runSimulator(url, load, begin);
  await Promise.race([begun, ended]);
  return { ended };
}

/** @param begin called when the producers begin */
async function runSimulator(
  url: string,
  { seconds, rate, queues }: LoadOptions,
  begin: () => void,
): Promise<SimulatorEnd> {
  const room = Math.ceil(rate * seconds * LEDGER_ROOM) + 1000;
  const amount = { url, seconds: Math.ceil(seconds), rate, queues, 'max-messages': room };
  const options = Object.entries(amount).flatMap(([name, value]) => [`--${name}`, String(value)]);
  const heap = `--max-old-space-size=${BASE_MEGABYTES + Math.ceil(room * MEGABYTES_PER_MESSAGE)}`;
  const child = spawn(process.execPath, [heap, 'tools/simulator/dist/main.js', ...options, ...SHAPE, ...FAULTS], {
    cwd: ROOT,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  // It does not end by itself when its parent is gone.
  const kill = (): void => void child.kill('SIGKILL');
  process.once('exit', kill);
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      if (output.includes(PRODUCING)) begin();
      // The progress, a line every five seconds, is dropped first.
      if (output.length > MOST_OUTPUT) output = output.slice(-MOST_OUTPUT);
    });
  }
  try {
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    });
    if (code === null) throw new Error(`the simulator was killed:\n${output}`);
    // Leaves out the progress.
    return { code, output: output.slice(Math.max(0, output.lastIndexOf(JUDGING))) };
  } finally {
    process.off('exit', kill);
  }
}
