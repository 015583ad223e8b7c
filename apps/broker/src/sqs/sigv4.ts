import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { isJson } from './json-protocol.js';
import { SqsError } from './sqs-error.js';

/*
 * The verifying side of AWS Signature Version 4. The SDKs of AWS only sign.
 */

const ALGORITHM = 'AWS4-HMAC-SHA256';
const SKEW_MS = 15 * 60 * 1000;
const LONGEST_EXPIRY_SECONDS = 604_800;

/** A request as a signature may cover it. */
export interface SignedRequest {
  method: string;
  /** Path and query as they came. */
  url: string;
  headers: IncomingHttpHeaders;
  body: Buffer;
}

/** A signature as the client claims it. */
export interface Signature {
  accessKey: string;
  /** Date, region, service and `aws4_request`, with slashes. */
  scope: string;
  /** `yyyymmddThhmmssZ` */
  date: string;
  signedHeaders: string[];
  signature: string;
  /** The lifetime of a presigned URL. */
  expiresSeconds: number | undefined;
}

/**
 * Reads the signature from the header or from the query. Throws `MissingAuthenticationToken` and
 * `IncompleteSignature`.
 */
export function readSignature({ url, headers }: Pick<SignedRequest, 'url' | 'headers'>): Signature {
  const { authorization } = headers;
  const signature = authorization === undefined ? fromQuery(queryOf(url)) : fromHeader(authorization, headers);
  // With JSON, this header decides what happens to the body.
  if (isJson(headers) && !signature.signedHeaders.includes('x-amz-target'))
    throw new SqsError('IncompleteSignature', 'The SignedHeaders must name x-amz-target.');
  return signature;
}

function fromHeader(authorization: string, { 'x-amz-date': date }: IncomingHttpHeaders): Signature {
  const [algorithm = '', rest = ''] = authorization.split(/\s+(.*)/s);
  if (algorithm !== ALGORITHM)
    throw new SqsError('IncompleteSignature', `The Authorization header must begin with ${ALGORITHM}.`);
  const parts = new Map(
    rest.split(',').map((part) => {
      const [name = '', value = ''] = part.trim().split(/=(.*)/s);
      return [name, value] as const;
    }),
  );
  return complete({
    credential: parts.get('Credential'),
    date: typeof date === 'string' ? date : undefined,
    signedHeaders: parts.get('SignedHeaders'),
    signature: parts.get('Signature'),
    expiresSeconds: undefined,
  });
}

function fromQuery(text: string): Signature {
  const query = new URLSearchParams(text);
  if (!query.has('X-Amz-Signature'))
    throw new SqsError('MissingAuthenticationToken', 'Request is missing Authentication Token');
  if (query.get('X-Amz-Algorithm') !== ALGORITHM)
    throw new SqsError('IncompleteSignature', `X-Amz-Algorithm must be ${ALGORITHM}.`);
  const expires = query.get('X-Amz-Expires') ?? '';
  const expiresSeconds = /^\d{1,6}$/.test(expires) ? Number(expires) : 0;
  if (expiresSeconds < 1 || expiresSeconds > LONGEST_EXPIRY_SECONDS)
    throw new SqsError('IncompleteSignature', `X-Amz-Expires must be 1 to ${LONGEST_EXPIRY_SECONDS}.`);
  return complete({
    credential: query.get('X-Amz-Credential') ?? undefined,
    date: query.get('X-Amz-Date') ?? undefined,
    signedHeaders: query.get('X-Amz-SignedHeaders') ?? undefined,
    signature: query.get('X-Amz-Signature') ?? undefined,
    expiresSeconds,
  });
}

function complete(given: {
  credential: string | undefined;
  date: string | undefined;
  signedHeaders: string | undefined;
  signature: string | undefined;
  expiresSeconds: number | undefined;
}): Signature {
  const { credential = '', date = '', signedHeaders = '', signature = '', expiresSeconds } = given;
  const parts = credential.split('/');
  const scope = parts.slice(-4).join('/');
  const accessKey = parts.slice(0, -4).join('/');
  const names = signedHeaders.split(';');
  const isComplete =
    accessKey !== '' &&
    /^\d{8}\/[\w-]+\/sqs\/aws4_request$/.test(scope) &&
    /^\d{8}T\d{6}Z$/.test(date) &&
    date.startsWith(scope.slice(0, 8)) &&
    names.includes('host') &&
    // A long header that is named a thousand times would cost a thousand times its length.
    new Set(names).size === names.length &&
    /^[0-9a-f]{64}$/.test(signature);
  if (!isComplete)
    throw new SqsError(
      'IncompleteSignature',
      'The signature needs a Credential with a scope of sqs, SignedHeaders with host and each header once, a Signature, and X-Amz-Date.',
    );
  return { accessKey, scope, date, signedHeaders: names, signature, expiresSeconds };
}

/**
 * Throws `SignatureDoesNotMatch` unless a secret made this signature, and `RequestExpired` if it is
 * too old or from the future.
 *
 * @param secrets the valid secrets of the access key
 * @param now ms since 1970
 */
export function checkSignature(
  request: SignedRequest,
  signature: Signature,
  secrets: readonly string[],
  now: number,
): void {
  const text = textToSign(request, signature);
  const given = Buffer.from(signature.signature, 'hex');
  const isValid = secrets.some((secret) => timingSafeEqual(sign(secret, signature.scope, text), given));
  if (!isValid)
    throw new SqsError(
      'SignatureDoesNotMatch',
      'The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. A proxy must not change the Host header.',
    );
  checkTime(signature, now);
}

function checkTime({ date, expiresSeconds }: Signature, now: number): void {
  const at = Date.parse(date.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, '$1-$2-$3T$4:$5:$6Z'));
  const until = at + (expiresSeconds === undefined ? SKEW_MS : expiresSeconds * 1000);
  if (now <= until && at <= now + SKEW_MS) return;
  throw new SqsError(
    expiresSeconds === undefined ? 'SignatureDoesNotMatch' : 'RequestExpired',
    `Signature expired or not yet valid: it is of ${date}, and the broker's time is ${new Date(now).toISOString()}. Set the clocks.`,
  );
}

function textToSign({ method, url, headers, body }: SignedRequest, signature: Signature): string {
  const path = url.replace(/\?.*/s, '');
  const query = new URLSearchParams(queryOf(url));
  query.delete('X-Amz-Signature');
  const canonical = [
    method,
    // SQS paths are encoded once more than they came: only their slashes stay.
    path.split('/').map(encode).join('/'),
    [...query]
      .map(([name, value]) => [encode(name), encode(value)] as const)
      .toSorted(([name, value], [otherName, otherValue]) => byBytes(name, otherName) || byBytes(value, otherValue))
      .map(([name, value]) => `${name}=${value}`)
      .join('&'),
    ...signature.signedHeaders.map((name) => `${name}:${valueOf(headers, name)}`),
    '',
    signature.signedHeaders.join(';'),
    sha256(body),
  ].join('\n');
  // Node reads headers as Latin-1, so this has the bytes that the client signed.
  return [ALGORITHM, signature.date, signature.scope, sha256(Buffer.from(canonical, 'latin1'))].join('\n');
}

function byBytes(one: string, other: string): number {
  return one < other ? -1 : Number(one > other);
}

function valueOf(headers: IncomingHttpHeaders, name: string): string {
  const value = headers[name] ?? '';
  return String(value)
    .replace(/[ \t]+/g, ' ')
    .replace(/^ | $/g, '');
}

/** The query of a URL, without the question mark. */
export function queryOf(url: string): string {
  return url.includes('?') ? url.slice(url.indexOf('?') + 1) : '';
}

/** RFC 3986, as AWS wants it. */
function encode(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
}

function sha256(data: Buffer): string {
  return createHash('sha256').update(data).digest('hex');
}

function sign(secret: string, scope: string, text: string): Buffer {
  const key = scope.split('/').reduce<Buffer | string>((last, part) => hmac(last, part), `AWS4${secret}`);
  return hmac(key, text);
}

function hmac(key: Buffer | string, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest();
}
