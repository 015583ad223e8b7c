import { writeSync } from 'node:fs';
import type { Writable } from 'node:stream';
import Table from 'cli-table3';
import pc from 'picocolors';
import { inert, inertJson, inertLine } from './inert.js';

export interface Stream extends Writable {
  isTTY?: boolean;
  columns?: number;
  rows?: number;
}

export interface OutputOptions {
  json: boolean;
  /** False for --no-color. */
  color: boolean;
  env: NodeJS.ProcessEnv;
}

/** A cell, as text of ours or of somebody else. Numbers stand at the right. */
export type Cell = string | number | null | undefined;

export interface Column<Row> {
  title: string;
  of: (row: Row) => Cell;
  right?: boolean;
  /** Gives way on a narrow terminal. */
  wide?: boolean;
  paint?: (text: string, row: Row) => string;
}

/**
 * The output of a command. Data goes to stdout: tables for people, JSON with `--json`. Notes and
 * progress go to stderr, so that a pipe carries data only.
 */
export class Output {
  readonly paint: ReturnType<typeof pc.createColors>;
  readonly json: boolean;

  constructor(
    options: OutputOptions,
    readonly stdout: Stream = process.stdout,
    readonly stderr: Stream = process.stderr,
  ) {
    this.json = options.json;
    // NO_COLOR: https://no-color.org
    const wants = options.color && !options.env['NO_COLOR'] && options.env['TERM'] !== 'dumb';
    this.paint = pc.createColors(wants && stdout.isTTY === true);
  }

  get isTerminal(): boolean {
    return this.stdout.isTTY === true;
  }

  /** Prints one JSON document, or what `human` makes of it. */
  data<T>(value: T, human: (value: T) => string): void {
    this.line(this.json ? inertJson(value, this.isTerminal ? 2 : undefined) : human(value));
  }

  /** Prints one item of a stream: a line of JSON, or what `human` makes of it. */
  item<T>(value: T, human: (value: T) => string): void {
    this.line(this.json ? inertJson(value) : human(value));
  }

  /** Prints that something was done: for people a sentence, for scripts an object. */
  done(value: object, sentence: string): void {
    this.data(value, () => sentence);
  }

  line(text: string): void {
    this.stdout.write(`${text}\n`);
  }

  /** Prints bytes as they are, such as a body for another program. */
  raw(bytes: Uint8Array): void {
    this.stdout.write(bytes);
  }

  /** Prints a line for people that is no data. */
  note(text: string): void {
    this.stderr.write(`${inert(text)}\n`);
  }

  /** Prints why something failed: for people the message, for scripts an object. */
  failure(code: string, message: string): void {
    if (this.json) this.stderr.write(`${inertJson({ error: { code, message } })}\n`);
    else this.note(`rowmq: ${message}`);
  }

  /** A table without lines, which people can read and `awk` can cut. */
  table<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string {
    const table = new Table({
      head: columns.map(({ title }) => this.paint.bold(title)),
      chars: BORDERLESS,
      style: { head: [], border: [], 'padding-left': 0, 'padding-right': 2 },
      colAligns: columns.map(({ right }) => (right ? 'right' : 'left')),
    });
    const cells = rows.map((row) => columns.map(({ of }) => textOf(of(row))));
    const room = this.roomFor(columns, cells);
    for (const [index, row] of rows.entries())
      table.push(
        columns.map(({ paint, wide }, column) => {
          const text = cells[index]?.[column] as string;
          const clipped = wide && text.length > room ? `${text.slice(0, Math.max(1, room - 1)).toWellFormed()}…` : text;
          return paint === undefined ? clipped : paint(clipped, row);
        }),
      );
    return table
      .toString()
      .split('\n')
      .map((line) => line.trimEnd())
      .join('\n');
  }

  /** Names and values, one a line. */
  fields(values: readonly (readonly [string, Cell])[]): string {
    const shown = values.filter(([, value]) => value !== undefined);
    const width = Math.max(...shown.map(([name]) => name.length));
    return shown.map(([name, value]) => `${this.paint.bold(name.padEnd(width))}  ${textOf(value)}`).join('\n');
  }

  /** The width of each wide column, so that a row fits a line. A pipe has no width. */
  private roomFor<Row>(columns: readonly Column<Row>[], cells: readonly string[][]): number {
    const { columns: width } = this.stdout;
    if (!this.isTerminal || width === undefined || width === 0) return Infinity;
    let rest = width;
    let wideColumns = 0;
    for (const [index, { title, wide }] of columns.entries()) {
      rest -= 2;
      if (wide) wideColumns += 1;
      else rest -= Math.max(title.length, ...cells.map((row) => (row[index] as string).length));
    }
    return Math.max(12, Math.floor(rest / Math.max(1, wideColumns)));
  }
}

const EDGES = ['top', 'top-mid', 'top-left', 'top-right', 'bottom', 'bottom-mid', 'bottom-left', 'bottom-right'];
const LINES = ['left', 'left-mid', 'mid', 'mid-mid', 'right', 'right-mid', 'middle'];
const BORDERLESS = Object.fromEntries([...EDGES, ...LINES].map((name) => [name, '']));

function textOf(value: Cell): string {
  if (value === null || value === undefined) return '–';
  return typeof value === 'number' ? value.toLocaleString('en-US') : inertLine(value);
}

/** Writes a last line also if the process ends at once. */
export function writeLast(text: string): void {
  try {
    writeSync(2, text);
  } catch {
    // The reader of stderr is gone.
  }
}
