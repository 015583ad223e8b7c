import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { newQueueName } from '../support/api.js';
import { eventually } from '../support/wait.js';
import { CREDENTIALS, findPython, REGION, useSqsBroker } from './support.js';

const rowmq = useSqsBroker();
const FOLDER = fileURLToPath(new URL('.', import.meta.url));
/** kombu's transport for SQS needs all of them. */
const python = findPython('celery, boto3, pycurl', true);
const TASKS = Number(process.env['ROWMQ_SQS_TASKS'] ?? 200);

test.skipIf(python === undefined)(
  'Celery loses no task with retries and late acks, although a worker is killed',
  { timeout: 240_000 + TASKS * 300 },
  async () => {
    const folder = await mkdtemp(join(tmpdir(), 'rowmq-celery-'));
    onTestFinished(async () => rm(folder, { recursive: true, force: true }));
    const done = join(folder, 'done');
    await writeFile(done, '');
    const { accessKeyId, secretAccessKey } = CREDENTIALS;
    const env = {
      PATH: process.env['PATH'],
      HOME: folder,
      AWS_DEFAULT_REGION: REGION,
      CELERY_URL: `sqs://${accessKeyId}:${secretAccessKey}@${new URL(rowmq.broker.url).host}//`,
      CELERY_QUEUE: newQueueName(),
      CELERY_DONE: done,
      PYTHONDONTWRITEBYTECODE: '1',
      // Celery warns of a worker that root runs.
      PYTHONWARNINGS: 'ignore',
    };
    const run = (args: string[]) => {
      const child = spawn(python as string, args, { cwd: FOLDER, env, stdio: ['ignore', 'ignore', 'inherit'] });
      onTestFinished(() => void child.kill('SIGKILL'));
      return child;
    };
    const startWorker = () =>
      run(['-m', 'celery', '-A', 'tasks', 'worker', '--pool', 'solo', '--loglevel', 'ERROR', '--without-mingle']);
    const numbers = async () => (await readFile(done, 'ascii')).split('\n').filter((line) => line !== '');

    const killed = startWorker();
    const [code] = (await once(run(['tasks.py', String(TASKS)]), 'exit')) as [number | null];
    expect(code).toBe(0);
    await eventually('the worker works', async () => (await numbers()).length >= TASKS / 4, 120_000);
    killed.kill('SIGKILL');
    startWorker();
    await eventually('each task is done', async () => new Set(await numbers()).size === TASKS, 120_000 + TASKS * 300);
  },
);
