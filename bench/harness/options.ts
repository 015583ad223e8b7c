import { join } from 'node:path';
import type { ServerKind } from '@rowmq/mysql-server';
import { Command, InvalidArgumentError } from 'commander';
import { type RigOptions, ROOT } from './rig.js';
import type { Timing } from './stretch.js';

/** Options of every benchmark. */
export interface BenchOptions extends RigOptions, Timing {
  runs: number;
  json: string;
}

const KINDS: readonly ServerKind[] = ['mysql', 'mariadb'];

/** Values of options that are not given. */
interface Defaults {
  runs: number;
  seconds: number;
  warmUpSeconds?: number;
  /** Name of the file in bench/results. */
  json: string;
}

/** A command with the options of every benchmark. @param name of `npm run` */
export function benchCommand(
  name: string,
  description: string,
  { runs, seconds, warmUpSeconds = 1, json }: Defaults,
): Command {
  return new Command(`npm run ${name} --`)
    .description(description)
    .helpOption('--help')
    .option('--servers <kinds>', 'which servers, one after the other', serverKinds, [...KINDS])
    .option(
      '--database-url <url>',
      'measures on this server, in databases that it creates and drops: mysql://user:password@127.0.0.1:3306',
    )
    .option('--runs <count>', 'how often each figure is measured; the tables show medians', positive, runs)
    .option('--seconds <seconds>', 'length of each measured stretch', secondsAbove0, seconds)
    .option('--warm-up-seconds <seconds>', 'load before each measured stretch', secondsFrom0, warmUpSeconds)
    .option('--buffer-pool-megabytes <megabytes>', "the servers' buffer pool", positive, 1024)
    .option('--broker-env <NAME=VALUE>', 'a setting of every broker; may be repeated', addSetting, {})
    .option(
      '--json <file>',
      'where the results go; only those in bench/results show in bench/RESULTS.md',
      join(ROOT, 'bench', 'results', `${json}.json`),
    );
}

/** Parses a whole number above 0. */
export function positive(text: string): number {
  if (!/^[1-9]\d*$/.test(text)) throw new InvalidArgumentError('must be a whole number above 0');
  return Number(text);
}

/** Parses a number of seconds above 0. */
function secondsAbove0(text: string): number {
  const seconds = secondsFrom0(text);
  if (seconds === 0) throw new InvalidArgumentError('must be a number above 0');
  return seconds;
}

/** Parses a number of seconds. */
function secondsFrom0(text: string): number {
  if (!/^\d+(\.\d+)?$/.test(text)) throw new InvalidArgumentError('must be a number');
  return Number(text);
}

/** Parses a whole number. */
export function notNegative(text: string): number {
  return text === '0' ? 0 : positive(text);
}

/** Gathers the values of an option that may be repeated. */
export function collect(text: string, before: string[]): string[] {
  return [...before, text];
}

/** Parses numbers with commas between. */
export function numbers(text: string): number[] {
  return text.split(',').map(positive);
}

/** Parses names of servers with commas between. */
export function serverKinds(text: string): ServerKind[] {
  return text.split(',').map((name) => {
    const kind = KINDS.find((known) => known === name);
    if (kind === undefined) throw new InvalidArgumentError(`must be of ${KINDS.join(', ')}`);
    return kind;
  });
}

/** Adds a setting of a process to those before. */
export function addSetting(text: string, settings: Record<string, string>): Record<string, string> {
  const [, name, value] = /^(ROWMQ_\w+)=(.*)$/.exec(text) ?? [];
  if (name === undefined || value === undefined) throw new InvalidArgumentError('must look like ROWMQ_WORKERS=2');
  return { ...settings, [name]: value };
}
