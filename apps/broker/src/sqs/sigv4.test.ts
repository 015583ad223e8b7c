import { Sha256 } from '@smithy/core/checksum';
import { SignatureV4 } from '@smithy/signature-v4';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { checkSignature, readSignature, type SignedRequest } from './sigv4.js';
import { SqsError } from './sqs-error.js';

const NOW = Date.UTC(2026, 0, 2, 3, 4, 5);
const MINUTE = 60_000;
const SECRET = 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY';
const TARGET = 'AmazonSQS.SendMessage';

interface Call {
  method?: string;
  path?: string;
  query?: Record<string, string | string[]>;
  headers?: Record<string, string>;
  body?: string;
}

interface Signing {
  service?: string;
  region?: string;
  sessionToken?: string;
}

function signerOf({ service = 'sqs', region = 'eu-central-1', sessionToken }: Signing): SignatureV4 {
  const credentials = { accessKeyId: 'AKID', secretAccessKey: SECRET, ...(sessionToken && { sessionToken }) };
  return new SignatureV4({ service, region, credentials, sha256: Sha256 });
}

const requestOf = ({ method = 'POST', path = '/', query = {}, headers = {}, body = '' }: Call) => ({
  method,
  protocol: 'http:',
  hostname: 'queues.example',
  path,
  query,
  headers: { host: 'queues.example:8080', ...headers },
  body,
});

/** A request as Node reads it, which an SDK wrote. */
function received(
  { method, path, query, headers }: Omit<ReturnType<typeof requestOf>, 'query'> & { query?: unknown },
  body: string,
): SignedRequest {
  const pairs = Object.entries((query ?? {}) as Record<string, string | string[]>).flatMap(([name, values]) =>
    [values].flat().map((value) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`),
  );
  return {
    method,
    url: pairs.length === 0 ? path : `${path}?${pairs.join('&')}`,
    headers: Object.fromEntries(
      Object.entries(headers).map(([name, value]) => [name.toLowerCase(), Buffer.from(value).toString('latin1')]),
    ),
    body: Buffer.from(body),
  };
}

async function signed(call: Call = {}, signing: Signing = {}): Promise<SignedRequest> {
  const request = await signerOf(signing).sign(requestOf(call), { signingDate: new Date(NOW) });
  return received(request as never, call.body ?? '');
}

async function presigned(call: Call = {}, signing: Signing = {}, expiresIn = 60): Promise<SignedRequest> {
  const request = requestOf({ method: 'GET', ...call });
  const url = await signerOf(signing).presign(request, { signingDate: new Date(NOW), expiresIn });
  return received(url as never, call.body ?? '');
}

/** `valid`, or the code of the error. */
function verdict(request: SignedRequest, now = NOW, secrets = [SECRET]): string {
  try {
    checkSignature(request, readSignature(request), secrets, now);
    return 'valid';
  } catch (error) {
    if (error instanceof SqsError) return error.kind.code;
    throw error;
  }
}

const CALL: Call = {
  path: '/000000000000/orders.fifo',
  query: { Action: 'SendMessage', 'AttributeName.1': 'All' },
  headers: { 'x-amz-meta': 'a value', 'content-type': 'application/x-www-form-urlencoded' },
  body: 'Action=SendMessage',
};
const forms = { header: signed, URL: presigned };

describe.each(Object.entries(forms))('a signature in the %s, made by the signer of AWS', (form, sign) => {
  test('is valid, with each of several secrets', async () => {
    const request = await sign(CALL);
    expect(verdict(request)).toBe('valid');
    expect(verdict(request, NOW, ['another', SECRET])).toBe('valid');
    expect(readSignature(request)).toMatchObject({
      accessKey: 'AKID',
      scope: '20260102/eu-central-1/sqs/aws4_request',
      expiresSeconds: form === 'URL' ? 60 : undefined,
    });
  });

  test('is not valid without its secret', async () => {
    const request = await sign(CALL);
    for (const secrets of [[], [''], [`${SECRET}x`], ['another', SECRET.toLowerCase()]])
      expect(verdict(request, NOW, secrets)).toBe('SignatureDoesNotMatch');
  });

  test.each<[string, (request: SignedRequest) => Partial<SignedRequest>]>([
    ['method', () => ({ method: 'PUT' })],
    ['path', ({ url }) => ({ url: url.replace('orders', 'others') })],
    ['value of a parameter', ({ url }) => ({ url: url.replace('=All', '=Policy') })],
    ['name of a parameter', ({ url }) => ({ url: url.replace('AttributeName.1', 'AttributeName.2') })],
    ['number of parameters', ({ url }) => ({ url: `${url}&Action=DeleteMessage` })],
    ['host', ({ headers }) => ({ headers: { ...headers, host: 'queues.example' } })],
    ['absence of a header', ({ headers: { host: _, ...headers } }) => ({ headers })],
    ['body', () => ({ body: Buffer.from('Action=PurgeQueue') })],
    ['end of the body', () => ({ body: Buffer.from('Action=SendMessage ') })],
    ['absence of the body', () => ({ body: Buffer.alloc(0) })],
  ])('covers the %s', async (_, change) => {
    const request = await sign(CALL);
    expect(verdict({ ...request, ...change(request) })).toBe('SignatureDoesNotMatch');
  });

  test('covers neither the order of parameters and headers, nor headers that it does not name', async () => {
    const { url, headers, ...request } = await sign(CALL);
    const [path, query = ''] = url.split('?');
    const reversed = Object.fromEntries(Object.entries({ ...headers, 'x-forwarded-for': '::1' }).toReversed());
    expect(verdict({ ...request, url: `${path}?${query.split('&').toReversed().join('&')}`, headers: reversed })).toBe(
      'valid',
    );
  });

  test('covers the token of a session', async () => {
    const { url, headers, ...request } = await sign(CALL, { sessionToken: 'a+token/==' });
    expect(verdict({ ...request, url, headers })).toBe('valid');
    const token = headers['x-amz-security-token'];
    const changed =
      token === undefined
        ? { url: url.replace('a%2Btoken', 'a%2Bt0ken'), headers }
        : { url, headers: { ...headers, 'x-amz-security-token': 'a+t0ken/==' } };
    expect(verdict({ ...request, ...changed })).toBe('SignatureDoesNotMatch');
  });

  test('must be for SQS, in any region', async () => {
    expect(verdict(await sign(CALL, { region: 'us-gov-west-1' }))).toBe('valid');
    expect(verdict(await sign(CALL, { service: 's3' }))).toBe('IncompleteSignature');
    const { url, headers, ...request } = await sign(CALL);
    const elsewhere = (text: string): string => text.replace('eu-central-1', 'eu-central-2');
    const { authorization } = headers;
    const moved = {
      ...request,
      url: elsewhere(url),
      headers: { ...headers, ...(authorization !== undefined && { authorization: elsewhere(authorization) }) },
    };
    expect(verdict(moved)).toBe('SignatureDoesNotMatch');
  });

  test('must cover the host, and name each header once', async () => {
    const { url, headers, ...request } = await sign(CALL);
    const naming = (names: (old: string) => string): SignedRequest => ({
      ...request,
      url: url.replace(/(SignedHeaders=)([^&]*)/, (_, start, old) => start + names(old)),
      headers: {
        ...headers,
        ...(headers.authorization !== undefined && {
          authorization: headers.authorization.replace(
            /(SignedHeaders=)([^,]*)/,
            (_, start, old) => start + names(old),
          ),
        }),
      },
    });
    expect(verdict(naming((old) => old))).toBe('valid');
    expect(verdict(naming((old) => old.replace('host', 'x-host')))).toBe('IncompleteSignature');
    expect(verdict(naming((old) => `${old};host`))).toBe('IncompleteSignature');
    expect(verdict(naming((old) => `${old};x-amz-nothing`))).toBe('SignatureDoesNotMatch');
    expect(verdict(naming(() => ''))).toBe('IncompleteSignature');
  });

  test('must cover the name of the operation in JSON', async () => {
    const json = { ...CALL, headers: { 'content-type': 'application/x-amz-json-1.0' } };
    const { headers, ...request } = await sign(json);
    expect(verdict({ ...request, headers: { ...headers, 'x-amz-target': TARGET } })).toBe('IncompleteSignature');
  });

  test('is refused with a payload that it does not cover', async () => {
    const request = await sign({ ...CALL, headers: { 'x-amz-content-sha256': 'UNSIGNED-PAYLOAD' } });
    expect(verdict(request)).toBe('SignatureDoesNotMatch');
  });

  test('holds for every query, however it is written', async () => {
    const name = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 6 });
    const value = fc.string({
      unit: fc.constantFrom('+', ' ', '&', '=', '%', '~', "'", '(', '*', 'é', '💌', 'a', '/'),
    });
    const query = fc.dictionary(
      fc.oneof(name, fc.constantFrom('Tag', 'Tag.1', 'Tag.10', 'Tag-1', 'Tag%', 'Tag=')),
      fc.oneof(value, fc.array(value, { minLength: 1, maxLength: 3 })),
      { maxKeys: 6 },
    );
    await fc.assert(
      fc.asyncProperty(query, value, async (given, body) => {
        const request = await sign({ query: given, body });
        expect(verdict(request)).toBe('valid');
        expect(verdict({ ...request, url: request.url.replaceAll('%20', '+') })).toBe('valid');
      }),
    );
  });

  test('holds for header values with any spaces and beyond ASCII', async () => {
    // The signer moves headers of the name x-amz-… into the query of a URL.
    for (const value of ['', ' a', 'a  b   c ', 'a\tb', ' \t ', 'é', 'à', '💌', 'a, b,c', '"a  b"'])
      expect(verdict(await sign({ headers: { 'x-other': value } })), JSON.stringify(value)).toBe('valid');
  });
});

describe('the time of a signature', () => {
  test('in the header is valid for 15 minutes to both sides', async () => {
    const request = await signed(CALL);
    for (const skew of [-15 * MINUTE, 15 * MINUTE]) {
      expect(verdict(request, NOW + skew)).toBe('valid');
      expect(verdict(request, NOW + skew + Math.sign(skew))).toBe('SignatureDoesNotMatch');
    }
  });

  test.each([1, 60, 604_800])('in a URL is valid for its %i seconds, and not long before', async (seconds) => {
    const request = await presigned(CALL, {}, seconds);
    expect(verdict(request, NOW + seconds * 1000)).toBe('valid');
    expect(verdict(request, NOW + seconds * 1000 + 1)).toBe('RequestExpired');
    expect(verdict(request, NOW - 15 * MINUTE)).toBe('valid');
    expect(verdict(request, NOW - 15 * MINUTE - 1)).toBe('RequestExpired');
  });

  test.each(['', '0', '-1', '1.5', '0x10', '1e3', '604801', '9999999', 'x'])(
    'in a URL needs a whole number of seconds, up to a week: not "%s"',
    async (seconds) => {
      const { url, ...request } = await presigned(CALL);
      expect(verdict({ ...request, url: url.replace('Expires=60', `Expires=${seconds}`) })).toBe('IncompleteSignature');
    },
  );

  test('is the day of its scope, and one that exists', async () => {
    const { headers, ...request } = await signed(CALL);
    for (const date of [undefined, '', '20260103T030405Z', '20260102', '2026-01-02T03:04:05Z'])
      expect(verdict({ ...request, headers: { ...headers, 'x-amz-date': date } })).toBe('IncompleteSignature');
    const { url, ...other } = await presigned(CALL);
    const noDay = url.replaceAll('20260102', '20261399');
    expect(verdict({ ...other, url: noDay })).toBe('SignatureDoesNotMatch');
  });
});

describe('a request without a complete signature', () => {
  test('says that there is none, or that something is missing', async () => {
    const { headers, ...request } = await signed(CALL);
    const { authorization = '', ...unsigned } = headers;
    expect(verdict({ ...request, headers: unsigned })).toBe('MissingAuthenticationToken');
    const faulty = [
      '',
      'Bearer secret',
      'AWS4-HMAC-SHA256',
      authorization.replace('SHA256', 'SHA1'),
      authorization.replace(/Credential=[^,]*/, ''),
      authorization.replace('AKID/', '/'),
      authorization.replace('AKID/', ''),
      authorization.replace(/Signature=.*/, ''),
      authorization.slice(0, -1),
      authorization.replace(/Signature=.*/, `Signature=${'g'.repeat(64)}`),
    ];
    for (const text of faulty)
      expect(verdict({ ...request, headers: { ...unsigned, authorization: text } }), text).toBe('IncompleteSignature');
    expect(verdict({ ...request, headers: { ...unsigned, authorization: authorization.replaceAll(', ', ',') } })).toBe(
      'valid',
    );
  });

  test('never causes any other error', () => {
    const text = fc.string({
      unit: fc.constantFrom('=', ',', ';', '/', '%', ' ', '\t', 'X-Amz-', 'Credential', 'SignedHeaders', 'host', 'é'),
    });
    fc.assert(
      fc.property(text, text, (authorization, query) => {
        const request = { method: 'GET', body: Buffer.alloc(0) };
        verdict({ ...request, url: '/', headers: { authorization: `AWS4-HMAC-SHA256 ${authorization}` } });
        verdict({ ...request, url: `/?X-Amz-Signature=&X-Amz-Algorithm=AWS4-HMAC-SHA256&${query}`, headers: {} });
      }),
    );
  });

  test.each([',', '=', ' ', '/', ';', 'Credential=', 'SignedHeaders=host;', 'a'])(
    'takes no time that grows faster than its length: one of many "%s"',
    { timeout: 10_000 },
    (part) => {
      const long = part.repeat(300_000 / part.length);
      for (const authorization of [long, `AWS4-HMAC-SHA256 ${long}`, `AWS4-HMAC-SHA256 Credential=${long}`])
        expect(verdict({ method: 'POST', url: '/', headers: { authorization }, body: Buffer.alloc(0) })).toBe(
          'IncompleteSignature',
        );
      const url = `/?X-Amz-Signature=&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=60&X-Amz-Credential=${long}`;
      expect(verdict({ method: 'GET', url, headers: {}, body: Buffer.alloc(0) })).toBe('IncompleteSignature');
    },
  );
});
