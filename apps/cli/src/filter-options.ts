import type { Command } from 'commander';
import { messageFilter, type MessageFilter } from '@rowmq/contract';
import { pastTime } from './output/units.js';
import { addFieldOptions, checked, fieldsOf } from './schema-options.js';

const { shape } = messageFilter;

/** Adds the options that say which messages are meant. */
export function addFilterOptions(command: Command): void {
  addFieldOptions(command, shape);
}

/** The messages that the options mean. */
export function filterOf(options: object): MessageFilter {
  const read = (field: string, text: string): string => (/From$|To$/.test(field) ? pastTime(text) : text);
  return checked(messageFilter, fieldsOf(options, shape, read));
}
