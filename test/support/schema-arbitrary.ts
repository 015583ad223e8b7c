import fc from 'fast-check';

/** A JSON schema, as OpenAPI has it, without references. */
export interface Schema {
  type?: string;
  enum?: unknown[];
  const?: unknown;
  anyOf?: Schema[];
  oneOf?: Schema[];
  allOf?: Schema[];
  items?: Schema;
  properties?: Record<string, Schema>;
  additionalProperties?: Schema | boolean;
  required?: string[];
  pattern?: string;
  format?: string;
  minLength?: number;
  maxLength?: number;
  minimum?: number;
  maximum?: number;
  minItems?: number;
  maxItems?: number;
  nullable?: boolean;
}

const MOST_ITEMS = 3;
const MOST_CHARACTERS = 40;

/** Values that fit no field, or that programs have stumbled over. */
const ODD: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom<unknown[]>(
    null,
    '',
    ' ',
    0,
    -1,
    0.5,
    1e21,
    2 ** 53,
    true,
    [],
    {},
    [[]],
    '\u0000',
    '\ud800',
    '../..',
    "'; DROP TABLE queue; -- ",
    'a\r\nset-cookie: b',
    '%00',
    '${7*7}',
    'x'.repeat(5000),
    '9'.repeat(400),
    '2026-02-30T00:00:00Z',
    '+275760-09-13T00:00:00.001Z',
  ),
  fc.constant(JSON.parse('{"__proto__":{"admin":true},"constructor":{"prototype":{}}}')),
  fc.constant(JSON.parse(`${'['.repeat(400)}${']'.repeat(400)}`)),
  fc.jsonValue(),
);

/** Values that a schema allows, mostly. A pattern and a format may not tell all of the rules. */
export function valuesOf(schema: Schema): fc.Arbitrary<unknown> {
  if (schema.const !== undefined) return fc.constant(schema.const);
  if (schema.enum !== undefined) return fc.constantFrom(...schema.enum);
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices !== undefined) return fc.oneof(...choices.map(valuesOf));
  if (schema.allOf !== undefined) return valuesOf(Object.assign({}, ...schema.allOf) as Schema);
  const own = ofType(schema);
  return schema.nullable === true ? fc.option(own) : own;
}

function ofType(schema: Schema): fc.Arbitrary<unknown> {
  switch (schema.type) {
    case 'string':
      return strings(schema);
    case 'integer':
    case 'number':
      return fc.integer({
        min: Math.max(schema.minimum ?? -1000, Number.MIN_SAFE_INTEGER),
        max: Math.min(schema.maximum ?? 1_000_000, Number.MAX_SAFE_INTEGER),
      });
    case 'boolean':
      return fc.boolean();
    case 'array':
      return fc.array(valuesOf(schema.items ?? {}), {
        minLength: schema.minItems ?? 0,
        maxLength: Math.max(schema.minItems ?? 0, Math.min(schema.maxItems ?? MOST_ITEMS, MOST_ITEMS)),
      });
    case 'object':
      return objects(schema);
    default:
      return fc.jsonValue();
  }
}

function strings({ pattern, format, minLength = 0, maxLength = MOST_CHARACTERS }: Schema): fc.Arbitrary<string> {
  if (format === 'date-time')
    return fc
      .date({ min: new Date('2020-01-01'), max: new Date('2030-01-01'), noInvalidDate: true })
      .map((date) => date.toISOString());
  if (pattern !== undefined) return fc.stringMatching(new RegExp(pattern), { maxLength: Math.min(maxLength, 100) });
  return fc.string({
    minLength,
    maxLength: Math.max(minLength, Math.min(maxLength, MOST_CHARACTERS)),
    unit: 'grapheme',
  });
}

function objects({ properties = {}, additionalProperties, required = [] }: Schema): fc.Arbitrary<object> {
  const known = fc.record(
    Object.fromEntries(Object.entries(properties).map(([name, schema]) => [name, valuesOf(schema)])),
    { requiredKeys: required.filter((name) => name in properties) },
  );
  if (typeof additionalProperties !== 'object') return known;
  const others = fc.dictionary(fc.string({ minLength: 1, maxLength: 10 }), valuesOf(additionalProperties), {
    maxKeys: 2,
  });
  return fc.tuple(known, others).map(([one, other]) => ({ ...other, ...one }));
}

/** Values that a schema allows, of which some have one part that is odd, missing or unknown. */
export function nearValuesOf(schema: Schema): fc.Arbitrary<unknown> {
  const valid = valuesOf(schema);
  return fc.oneof(
    { weight: 3, arbitrary: valid },
    { weight: 1, arbitrary: ODD },
    {
      weight: 3,
      arbitrary: fc
        .tuple(valid, ODD, fc.nat(), fc.boolean())
        .map(([value, odd, at, isGone]) => spoilt(value, odd, at, isGone)),
    },
  );
}

/** Puts the odd value into the place with this number, or removes what is there. */
function spoilt(value: unknown, odd: unknown, at: number, isGone: boolean): unknown {
  if (typeof value !== 'object' || value === null) return odd;
  const names = [...Object.keys(value), 'unknown'];
  const name = names[at % names.length] as string;
  const copy: Record<string, unknown> = Array.isArray(value) ? ([...value] as never) : { ...value };
  const part = copy[name];
  if (typeof part === 'object' && part !== null && at % 3 > 0) {
    copy[name] = spoilt(part, odd, Math.floor(at / names.length), isGone);
  } else if (isGone && !Array.isArray(copy)) delete copy[name];
  else copy[name] = odd;
  return copy;
}
