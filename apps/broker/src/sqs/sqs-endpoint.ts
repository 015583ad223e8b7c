import { randomUUID } from 'node:crypto';
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import { Inject, Injectable, Logger } from '@nestjs/common';
import type { ErrorCode } from '@rowmq/contract';
import { AuditLog } from '../audit/audit-log.js';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';
import type { CallConfig } from '../http/api-call.js';
import type { BrokerAdapter } from '../http/broker-adapter.js';
import { addressOf, type Origin } from '../http/client-address.js';
import { ClientConnection } from '../http/client-connection.js';
import { UnreadAnswers } from '../http/unread-answers.js';
import { isJson, jsonProtocol, readJsonRequest } from './json-protocol.js';
import type { Address } from './queue-address.js';
import { readForm } from './query-form.js';
import { queryOf } from './sigv4.js';
import { SqsAccess } from './sqs-access.js';
import { SqsError, toSqsError } from './sqs-error.js';
import { isOperation } from './sqs-input.js';
import type { SqsAnswer, SqsProtocol, SqsRequest } from './sqs-protocol.js';
import { isAudited, SqsService } from './sqs.service.js';
import { xmlProtocol } from './xml-protocol.js';

const FORM_TYPE = 'application/x-www-form-urlencoded';
/** The paths of queues. REST has others, or other methods. */
const QUEUE_PATHS = ['/:account(^\\d{12}$)/:queue', '/queue/:queue'];
const CONFIG: Pick<CallConfig, 'call' | 'needs'> = { call: 'sqs', needs: { scope: 'none' } };
/** A form writes a byte as up to three characters. */
const FORM_FACTOR = 3;
const BATCH = 10;
const DEFAULT_REGION = 'us-east-1';
/** `GET /` belongs to REST unless it names an action of SQS, as presigned URLs do. */
const NAMES_ACTION = { name: 'action', value: 'named', pattern: /^\/\?(?:.*&)?Action=/s };

/** The part of Fastify's request that SQS uses. */
interface RawRequest extends Origin {
  id: string;
  url: string;
  method: string;
  headers: IncomingHttpHeaders;
  raw: IncomingMessage;
  body: unknown;
  params: unknown;
  problem?: ErrorCode | null;
}

interface RawReply {
  raw: ServerResponse;
  code(status: number): RawReply;
  headers(values: Record<string, string>): RawReply;
  send(payload: unknown): unknown;
  callNotFound(): unknown;
}

/** The routes of SQS on the broker's port. The content type decides on the protocol. */
@Injectable()
export class SqsEndpoint {
  private readonly logger = new Logger('sqs');

  constructor(
    private readonly service: SqsService,
    private readonly access: SqsAccess,
    private readonly audit: AuditLog,
    private readonly unread: UnreadAnswers,
    @Inject(BROKER_CONFIG)
    private readonly config: Pick<BrokerConfig, 'sizes' | 'sqs'>,
  ) {}

  /** Adds the routes in a scope of their own, which has its own parsers and errors. */
  serve(adapter: BrokerAdapter): void {
    this.access.announce();
    const { bodyBytes, requestBytes } = this.config.sizes;
    const bodyLimit = Math.max(requestBytes, FORM_FACTOR * BATCH * bodyBytes);
    routeByAction(adapter);
    void adapter.getInstance().register(async (scope) => {
      scope.removeAllContentTypeParsers();
      scope.addContentTypeParser('*', { parseAs: 'buffer', bodyLimit }, (_request, body, done) => done(null, body));
      scope.setErrorHandler(async (error, request, reply) => {
        const raw = request as unknown as RawRequest;
        this.send(reply, this.failed(raw, protocolOf(raw), error, randomUUID()));
        return reply;
      });
      const handler = async (request: unknown, reply: unknown): Promise<unknown> => {
        if (!isSqs(request as RawRequest)) {
          (reply as RawReply).callNotFound();
          return reply;
        }
        const answer = await this.answer(request as RawRequest, reply as RawReply);
        return this.send(reply as RawReply, answer);
      };
      scope.route({ method: 'POST', url: '/', config: CONFIG, bodyLimit, handler });
      const constraints = { [NAMES_ACTION.name]: NAMES_ACTION.value };
      scope.route({ method: 'GET', url: '/', config: CONFIG, constraints, handler });
      for (const url of QUEUE_PATHS) scope.route({ method: ['GET', 'POST'], url, config: CONFIG, bodyLimit, handler });
    });
  }

  private send(reply: RawReply, { status, headers, body }: SqsAnswer): unknown {
    // As for REST: the client may still be sending what was refused.
    if (status === 413) reply.headers({ connection: reply.raw.shouldKeepAlive ? 'keep-alive' : 'close' });
    this.unread.add(body.length, reply.raw);
    // Fastify would add a charset to the content type of a text.
    return reply.code(status).headers(headers).send(Buffer.from(body));
  }

  private async answer(request: RawRequest, reply: RawReply): Promise<SqsAnswer> {
    const requestId = randomUUID();
    const protocol = protocolOf(request);
    // Once the client has hung up, nobody knows it.
    const ip = addressOf(request);
    let operation: string | undefined;
    let answer: SqsAnswer;
    let accessKey: string | undefined;
    try {
      const sent = readRequest(request);
      operation = sent.operation;
      if (operation === undefined || !isOperation(operation)) throw unknownOperation(operation, protocol);
      const { method, url, headers } = request;
      const signer = await this.access.check({ method, url, headers, body: bytesOf(request) }, ip);
      accessKey = signer.caller.name ?? undefined;
      const { queue: pathQueue } = request.params as { queue?: string };
      if (
        pathQueue !== undefined &&
        protocol === xmlProtocol &&
        (operation === 'CreateQueue' || operation === 'ListQueues')
      )
        throw new SqsError('InvalidAction', `The action ${operation} is not valid for this endpoint.`);
      const output = await this.service.run(operation, sent.members, {
        ...signer,
        address: this.addressFor(request),
        ip,
        pathQueue,
        client: new ClientConnection(request.raw, reply.raw),
        userAgent: request.headers['user-agent'],
      });
      answer = protocol.write(operation, output, requestId);
    } catch (error) {
      answer = this.failed(request, protocol, error, requestId);
    }
    if (operation !== undefined && isOperation(operation) && isAudited(operation))
      this.audit.add({
        action: operation,
        path: request.url.replace(/\?.*/s, '').slice(0, 1000),
        status: answer.status,
        problem: request.problem ?? null,
        key: accessKey ?? null,
        address: ip || 'unknown',
        requestId: request.id,
        changes: null,
      });
    return answer;
  }

  private failed(request: RawRequest, protocol: SqsProtocol, thrown: unknown, requestId: string): SqsAnswer {
    const error = toSqsError(thrown);
    request.problem = error.problem;
    if (error.problem === 'internal-error') this.logger.error(thrown);
    return protocol.writeError(error, requestId);
  }

  /** The client must reach the addresses in answers, so they have the host that it used. */
  private addressFor(request: RawRequest): Address {
    const { account, region, publicUrl } = this.config.sqs;
    return {
      base: publicUrl ?? baseOf(request),
      account,
      region: region ?? regionOf(request) ?? DEFAULT_REGION,
    };
  }
}

/** Lets a route ask for an action in the query. */
function routeByAction(adapter: BrokerAdapter): void {
  const { name, value, pattern } = NAMES_ACTION;
  adapter.getInstance().addConstraintStrategy({
    name,
    storage: () => {
      const routes = new Map<unknown, never>();
      return {
        get: (wanted) => routes.get(wanted) ?? null,
        set: (wanted, route) => void routes.set(wanted, route as never),
      };
    },
    deriveConstraint: ({ url = '' }) => (pattern.test(url) ? value : undefined),
  });
}

/** Other content is a call of REST, and this is no path of REST. */
function isSqs({ method, headers }: RawRequest): boolean {
  return method === 'GET' || isForm(headers) || isJson(headers);
}

function isForm({ 'content-type': type = '' }: IncomingHttpHeaders): boolean {
  return type.toLowerCase().startsWith(FORM_TYPE);
}

function protocolOf({ method, headers }: RawRequest): SqsProtocol {
  return method === 'POST' && isJson(headers) ? jsonProtocol : xmlProtocol;
}

function bytesOf({ body }: Pick<RawRequest, 'body'>): Buffer {
  return Buffer.isBuffer(body) ? body : Buffer.alloc(0);
}

function readRequest({ method, url, headers, body }: RawRequest): SqsRequest {
  const bytes = bytesOf({ body });
  // Node reads the bytes of a URL as Latin-1.
  if (method === 'GET') return readForm(Buffer.from(queryOf(url), 'latin1'));
  return isForm(headers) ? readForm(bytes) : readJsonRequest(bytes, headers['x-amz-target'] as string | undefined);
}

function unknownOperation(operation: string | undefined, protocol: SqsProtocol): SqsError {
  if (protocol === jsonProtocol || operation === undefined)
    return new SqsError(
      'UnknownOperationException',
      `The operation ${operation ?? '(none)'} is not known. JSON requests name it as X-Amz-Target: AmazonSQS.SendMessage.`,
    );
  return new SqsError('InvalidAction', `The action ${operation} is not valid for this endpoint.`);
}

/** Scheme and host of a request, as its client wrote them. A proxy in between says the scheme. */
function baseOf({ headers, raw }: RawRequest): string {
  const forwarded = headers['x-forwarded-proto'];
  const scheme = /^https\b/i.test(String(forwarded ?? '')) ? 'https' : 'http';
  const host = headers.host ?? 'localhost';
  const { localPort, remoteAddress = '' } = raw.socket;
  // Perl's client leaves out the port. Only a client on this machine surely used the broker's own.
  const isDirect = forwarded === undefined && headers['x-forwarded-for'] === undefined && LOOPBACK.test(remoteAddress);
  const isPortMissing = !/:\d+$/.test(host) && localPort !== 80 && isDirect;
  return `${scheme}://${host}${isPortMissing ? `:${localPort}` : ''}`;
}

const LOOPBACK = /^(?:::1|(?:::ffff:)?127\.)/;

/** The region that the client signed with. */
function regionOf({ headers, url }: RawRequest): string | undefined {
  const [, credential = ''] = CREDENTIAL.exec(headers.authorization ?? '') ?? CREDENTIAL.exec(url) ?? [];
  return /\/\d{8}\/([\w-]+)\//.exec(credential.replaceAll(/%2F/gi, '/'))?.[1];
}

const CREDENTIAL = /Credential=([^,&\s]*)/;
