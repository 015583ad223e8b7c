import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { DocumentBuilder, type OpenAPIObject, SwaggerModule } from '@nestjs/swagger';
import * as contract from '@rowmq/contract';
import { z } from 'zod';
import type { NeedsConfig } from './needs.js';
import { problemResponses } from './problem-responses.js';
import { NAMED, refTo } from './schema-names.js';
import { VERSION } from './version.js';

type Schema = Record<string, unknown>;

/** Problems of every call with a method that may have a body. */
const OF_BODIES = problemResponses(['message-too-large', { code: 'invalid-request', status: 415 }]);
/** Schemas of messages that a producer sends. */
const NAMED_WITH_BODIES = ['EnqueueMessage', 'PublishMessage', 'ScheduledMessage'];
/** The problems of every call: a head that is too large, and a request that is slow or late. */
const OF_EVERY_CALL = problemResponses([
  { code: 'invalid-request', status: 431 },
  { code: 'invalid-request', status: 408 },
  { code: 'overloaded', status: 408 },
]);

const DOCS_ROUTES = /^\/(?:docs(?:\/|$)|openapi\.json$)/;
const DOCS_NEED: NeedsConfig = { needs: { scope: 'any', isOperation: true } };

const DESCRIPTION = `A message broker whose only state is a MySQL database. Enqueue messages, dequeue them under a lease, ack them.

Errors are RFC 9457 problem details with a stable \`code\`. Answers have the header \`RowMQ-Version\`.

HEAD is answered like GET, without a body. Any other method that a path does not have, OPTIONS included, gets 404, and so does a path with a slash at its end, after the check of the key. The broker sends no CORS headers.`;

/**
 * Describes every call, at `/docs` for people and at `/openapi.json` for programs. The first
 * request for either builds the document. Most brokers are never asked.
 */
export function serveDocs(app: NestFastifyApplication, sizes: contract.SizeLimits): void {
  // The module makes the routes, so nothing beside them can say what they need.
  app
    .getHttpAdapter()
    .getInstance()
    .addHook('onRoute', (route: { url: string; config?: object }) => {
      if (DOCS_ROUTES.test(route.url)) route.config = { ...route.config, ...DOCS_NEED };
    });
  SwaggerModule.setup('docs', app, () => buildDocument(app, sizes), {
    jsonDocumentUrl: 'openapi.json',
    customSiteTitle: 'RowMQ',
  });
}

function buildDocument(app: NestFastifyApplication, sizes: contract.SizeLimits): OpenAPIObject {
  const config = new DocumentBuilder()
    .setTitle('RowMQ')
    .setDescription(DESCRIPTION)
    .setVersion(VERSION)
    .setLicense('Apache-2.0', 'https://www.apache.org/licenses/LICENSE-2.0')
    .addBearerAuth({
      type: 'http',
      scheme: 'bearer',
      bearerFormat: 'API key',
      description: 'An API key of /v1/admin/keys, or ROWMQ_ADMIN_KEY',
    })
    .build();
  const document = SwaggerModule.createDocument(app, config, {
    operationIdFactory: (_controller, method) => method,
    standardSchemaConverter: (schema, { schemaType }) => convert(schema as z.ZodType, schemaType),
  });
  for (const { get, post, put, delete: remove } of Object.values(document.paths)) {
    for (const call of [get, post, put, remove])
      Object.assign(call?.responses ?? {}, { ...OF_EVERY_CALL, ...call?.responses });
    for (const call of [post, put, remove]) Object.assign(call?.responses ?? {}, { ...OF_BODIES, ...call?.responses });
  }
  limitBodies(document, sizes);
  addSchema(document, contract.problem);
  addSchema(document, contract.rootAnswer);
  return document;
}

/**
 * Writes the limit of a body, which is a setting. A body of base64 is a third longer than what it
 * stands for.
 */
function limitBodies(document: OpenAPIObject, { bodyBytes }: contract.SizeLimits): void {
  for (const name of NAMED_WITH_BODIES) {
    const schema = document.components?.schemas?.[name] as { properties?: { body?: Schema } } | undefined;
    Object.assign(schema?.properties?.body ?? {}, {
      description: `At most ${bodyBytes} bytes after decoding`,
      maxLength: Math.ceil(bodyBytes / 3) * 4,
    });
  }
}

function addSchema(document: OpenAPIObject, schema: z.ZodType): void {
  const { components } = convert(schema, 'output');
  document.components = {
    ...document.components,
    schemas: { ...document.components?.schemas, ...(components as Record<string, object>) },
  };
}

function convert(schema: z.ZodType, io: 'input' | 'output'): { schema: Schema; components: Record<string, Schema> } {
  const used = new Map<string, z.ZodType>();
  const whole = (one: z.ZodType, isRoot: boolean): Schema =>
    z.toJSONSchema(one, {
      target: 'openapi-3.0',
      io,
      override: ({ zodSchema, jsonSchema, path }) => {
        // Zod writes down which integers JavaScript can hold. That is no limit of the contract.
        if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER) delete jsonSchema.minimum;
        if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum;
        const name = NAMED.get(zodSchema as unknown as z.ZodType);
        if (name === undefined || (isRoot && path.length === 0)) return;
        used.set(name, zodSchema as unknown as z.ZodType);
        for (const key of Object.keys(jsonSchema)) delete jsonSchema[key];
        jsonSchema.$ref = `#/components/schemas/${name}`;
      },
    }) as Schema;
  const named = NAMED.has(schema) ? schema : withoutDefault(schema);
  const root = NAMED.has(named) ? refTo(named) : whole(schema, false);
  if (NAMED.has(named)) used.set(NAMED.get(named) as string, named);
  const components: Record<string, Schema> = {};
  // The map grows while parts are converted.
  for (const [name, part] of used) components[name] = whole(part, true);
  return { schema: root, components };
}

/** The default of a whole request says only that the request may be absent. */
function withoutDefault(schema: z.ZodType): z.ZodType {
  return schema instanceof z.ZodDefault ? (schema.def.innerType as z.ZodType) : schema;
}
