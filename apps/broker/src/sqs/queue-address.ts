import { Buffer } from 'node:buffer';
import { invalidValue, SqsError } from './sqs-error.js';

/** How answers name queues to one client. */
export interface Address {
  /** The beginning of every QueueUrl: scheme and host, without a slash at the end. */
  base: string;
  account: string;
  region: string;
}

export function urlOf({ base, account }: Address, name: string): string {
  return `${base}/${account}/${name}`;
}

export function arnOf({ region, account }: Address, name: string): string {
  return `arn:aws:sqs:${region}:${account}:${name}`;
}

/** The queue of a QueueUrl: its last segment. A bare name is one, too. */
export function nameInUrl(url: string): string {
  const path = url.replace(/[?#].*$/s, '').replace(/\/+$/, '');
  return decode(path.slice(path.lastIndexOf('/') + 1));
}

function decode(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

/** The queue of an ARN. Any region and account will do. */
export function nameInArn(arn: string): string | undefined {
  return /^arn:[\w-]+:sqs:[\w-]*:\d*:([\w.-]+)$/.exec(arn)?.[1];
}

/** Throws `ResourceNotFoundException`. */
export function queueInArn(arn: string, parameter: string): string {
  const name = nameInArn(arn);
  if (name === undefined) throw invalidValue(arn, parameter, 'It is not the ARN of a queue.');
  return name;
}

const NAME = /^[A-Za-z0-9_-]{1,80}$/;
const FIFO_NAME = /^(?=.{6,80}$)[A-Za-z0-9_-]+\.fifo$/;

/** Throws `InvalidParameterValue` unless SQS would create a queue of this name. */
export function checkName(name: string, isFifo: boolean): void {
  if (isFifo ? FIFO_NAME.test(name) : NAME.test(name)) return;
  const isSuffixWrong = name.endsWith('.fifo') !== isFifo;
  throw new SqsError(
    'InvalidParameterValue',
    isSuffixWrong && FIFO_NAME.test(isFifo ? `${name}.fifo` : name)
      ? isFifo
        ? 'The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, must end with .fifo suffix and be 1 to 80 in length.'
        : 'Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length. A name that ends with .fifo needs the attribute FifoQueue.'
      : `Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length${isFifo ? ', with the suffix .fifo' : ''}`,
  );
}

/** A page of names, after the name that the token holds. */
export function pageOf(
  names: readonly string[],
  { MaxResults, NextToken }: { MaxResults?: number | undefined; NextToken?: string | undefined },
): { page: string[]; next: string | undefined } {
  if (MaxResults !== undefined && (MaxResults < 1 || MaxResults > 1000))
    throw invalidValue(MaxResults, 'MaxResults', 'Must be between 1 and 1000, if provided.');
  const after = NextToken === undefined ? '' : Buffer.from(NextToken, 'base64url').toString();
  // With a broken token, an empty page would say that there are no queues left.
  if (NextToken !== undefined && tokenOf(after) !== NextToken)
    throw invalidValue(NextToken, 'NextToken', 'It is not a token of this list.');
  const left = names.filter((name) => name > after);
  const page = left.slice(0, MaxResults ?? 1000);
  const isMore = MaxResults !== undefined && left.length > page.length;
  return { page, next: isMore ? tokenOf(page.at(-1) ?? '') : undefined };
}

function tokenOf(name: string): string {
  return Buffer.from(name).toString('base64url');
}
