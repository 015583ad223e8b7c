import { type Command, Option } from 'commander';
import { readRequest, RowmqError } from '@rowmq/contract';
import type { z } from 'zod';
import { UsageError } from './exit-codes.js';

/*
 * Options that are the fields of a request. The contract's schemas say which there are and what
 * they mean, so that a new field is an option at once.
 */

type Shape = Record<string, z.ZodType>;

const dashed = (field: string): string => field.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

/** Adds an option for each field. */
export function addFieldOptions(command: Command, shape: Shape): void {
  for (const [field, schema] of Object.entries(shape)) {
    const { description } = schema.meta() ?? {};
    const value = field.endsWith('Seconds') ? 'duration' : /From$|To$/.test(field) ? 'time' : 'value';
    command.addOption(new Option(`--${dashed(field)} <${value}>`, description));
  }
}

/**
 * The fields that were given as options. `read` turns a text into the value that the request has.
 * Commander itself cannot: it takes null for an option without a value.
 */
export function fieldsOf(
  options: object,
  shape: Shape,
  read: (field: string, text: string) => unknown,
): Record<string, unknown> {
  const given = options as Record<string, string | undefined>;
  return Object.fromEntries(
    Object.keys(shape).flatMap((field) => {
      const text = given[field];
      return text === undefined ? [] : [[field, read(field, text)]];
    }),
  );
}

/** Reads a request as the broker would, so that a mistake is named before anything is sent. */
export function checked<Schema extends z.ZodType>(schema: Schema, request: unknown): z.output<Schema> {
  try {
    return readRequest(schema, request);
  } catch (error) {
    if (error instanceof RowmqError && error.code === 'invalid-request')
      throw new UsageError(
        error.message.replaceAll(
          /(^|; )([a-z][A-Za-z]*): /g,
          (_, before: string, field: string) => `${before}--${dashed(field)} `,
        ),
      );
    throw error;
  }
}
