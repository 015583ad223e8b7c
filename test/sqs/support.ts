import { execFile, execFileSync } from 'node:child_process';
import { promisify } from 'node:util';
import { SQSClient } from '@aws-sdk/client-sqs';
import { type SharedBroker, useOwnBroker } from '../support/api.js';

/** Any credentials will do on a broker that asks for none. */
export const CREDENTIALS = { accessKeyId: 'test', secretAccessKey: 'test' };
export const REGION = 'eu-central-1';

/** A broker that takes bodies as large as SQS does. */
export function useSqsBroker(env: Record<string, string> = {}): SharedBroker {
  return useOwnBroker({ ROWMQ_MAX_BODY_BYTES: '262144', ...env });
}

/** AWS's own client for Node, which speaks JSON. It checks the digests of bodies itself. */
export function newClient(url: string, credentials = CREDENTIALS): SQSClient {
  return new SQSClient({ endpoint: url, region: REGION, credentials, maxAttempts: 1 });
}

/** An interpreter of Python in which these modules can be imported, or undefined. */
export function findPython(modules: string, isSystem: boolean): string | undefined {
  const python = isSystem ? '/usr/bin/python3' : 'python3';
  try {
    execFileSync(python, ['-c', `import ${modules}`], { stdio: 'ignore' });
    return python;
  } catch {
    console.warn(
      `NOT TESTED: ${python} has no ${modules}. apt-get install python3-boto3 python3-celery python3-pycurl`,
    );
    return undefined;
  }
}

/** A command line of AWS, or undefined. */
export function findAws(): string | undefined {
  try {
    execFileSync('/usr/bin/aws', ['--version'], { stdio: 'ignore' });
    return '/usr/bin/aws';
  } catch {
    console.warn('NOT TESTED: there is no /usr/bin/aws. apt-get install awscli');
    return undefined;
  }
}

const run = promisify(execFile);

/** Runs a program that calls the broker as SQS. Fails with its output. */
export async function runProgram(program: string, args: string[], url: string): Promise<string> {
  const env = {
    PATH: process.env['PATH'],
    HOME: '/nonexistent',
    AWS_ACCESS_KEY_ID: CREDENTIALS.accessKeyId,
    AWS_SECRET_ACCESS_KEY: CREDENTIALS.secretAccessKey,
    AWS_DEFAULT_REGION: REGION,
    SQS_URL: url,
  };
  const { stdout } = await run(program, args, { env, timeout: 240_000, maxBuffer: 16 * 1024 * 1024 });
  return stdout;
}
