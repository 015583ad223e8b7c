import { depthSum } from './broker-state.js';
import type { Depth, Percentiles, Sample } from './meter.js';
import type { Phase, Watcher } from './simulation.js';

const LINE_EVERY_SECONDS = 5;
const WIDTH = 78;

/**
 * Shows a run while it goes on. A terminal gets a table that is redrawn every second. Anything else
 * gets a line every five seconds.
 */
export class LiveTable implements Watcher {
  readonly #out: NodeJS.WriteStream;
  #phase: Phase = 'producing';
  #redelivered = 0;
  #errors = 0;
  #linesDrawn = 0;
  #nextLineAt = LINE_EVERY_SECONDS;
  /** Counts since the last line. */
  #pending: Sample[] = [];

  constructor(out: NodeJS.WriteStream) {
    this.#out = out;
  }

  phase(phase: Phase): void {
    this.#phase = phase;
    if (!this.#out.isTTY) this.#out.write(`${phase} …\n`);
  }

  sample(sample: Sample): void {
    this.#redelivered += sample.counts.redelivered;
    this.#errors += sample.errors;
    if (this.#out.isTTY) this.#redraw(sample);
    else this.#line(sample);
  }

  #redraw(sample: Sample): void {
    const { latency } = sample;
    const lines = [
      bar(` RowMQ simulator · ${this.#phase} · ${sample.at.toFixed(0)} s `),
      `  messages/s   enqueue ${rate(sample, 'enqueued')}   dequeue ${rate(sample, 'dequeued')}   ack ${rate(sample, 'acked')}`,
      `  depth        ready   ${depth(sample, 'ready')}   delayed ${depth(sample, 'delayed')}   leased ${depth(sample, 'leased')}   waiting ${depth(sample, 'waiting')}`,
      `  in flight    ${count(sample.requestsInFlight)} requests     redelivered ${count(this.#redelivered)}   errors ${count(this.#errors)}`,
      '',
      `  latency, ms            p50        p95        p99        max`,
      row('enqueue', latency.enqueue),
      row('dequeue (and wait)', latency.dequeue),
      row('ack', latency.ack),
      row('end to end', latency.endToEnd),
      bar(''),
    ];
    const up = this.#linesDrawn === 0 ? '' : `\u001b[${this.#linesDrawn}A`;
    this.#linesDrawn = lines.length;
    this.#out.write(`${up}${lines.map((line) => `\u001b[2K${line}\n`).join('')}`);
  }

  #line(sample: Sample): void {
    this.#pending.push(sample);
    if (sample.at < this.#nextLineAt) return;
    this.#nextLineAt = sample.at + LINE_EVERY_SECONDS - 0.5;
    const seconds = this.#pending.reduce((sum, each) => sum + each.seconds, 0);
    const perSecond = (what: 'enqueued' | 'dequeued' | 'acked') =>
      Math.round(this.#pending.reduce((sum, each) => sum + each.counts[what], 0) / seconds);
    const { depth: held, latency } = sample;
    this.#out.write(
      `${sample.at.toFixed(0).padStart(4)} s  enqueue ${perSecond('enqueued')}/s  dequeue ${perSecond('dequeued')}/s  ack ${perSecond('acked')}/s` +
        `  depth ${held === null ? '?' : depthSum(held)}  in flight ${sample.requestsInFlight}` +
        `  p99 ms: enqueue ${ms(latency.enqueue.p99)}, dequeue ${ms(latency.dequeue.p99)}, end to end ${ms(latency.endToEnd.p99)}` +
        `  redelivered ${this.#redelivered}  errors ${this.#errors}\n`,
    );
    this.#pending = [];
  }
}

function bar(title: string): string {
  return `──${title}${'─'.repeat(Math.max(0, WIDTH - title.length))}`;
}

function row(name: string, { p50, p95, p99, max }: Percentiles): string {
  return `  ${name.padEnd(18)}${[p50, p95, p99, max].map((value) => ms(value).padStart(11)).join('')}`;
}

function rate(sample: Sample, what: 'enqueued' | 'dequeued' | 'acked'): string {
  return count(sample.counts[what] / sample.seconds);
}

function depth(sample: Sample, what: keyof Depth): string {
  return sample.depth === null ? '?'.padStart(8) : count(sample.depth[what]);
}

const count = (value: number) => Math.round(value).toLocaleString('en').padStart(8);
const ms = (value: number | null) => (value === null ? '–' : value.toFixed(value < 10 ? 2 : 1));
