import { Presets, SingleBar } from 'cli-progress';
import type { Output } from './output.js';
import { rate } from './units.js';

/** A bar on stderr with count and rate. It is for people: nothing appears outside a terminal. */
export class Progress {
  readonly #bar: SingleBar | undefined;
  readonly #started = performance.now();
  #total: number | null;

  /** @param total null if nobody knows it */
  constructor(out: Output, title: string, total: number | null) {
    this.#total = total;
    if (out.stderr.isTTY !== true) return;
    this.#bar = new SingleBar(
      {
        format:
          total === null ? `${title} {value}  {rate}/s` : `${title} {bar} {percentage}%  {value} of {total}  {rate}/s`,
        stream: out.stderr,
        hideCursor: true,
        clearOnComplete: true,
        barsize: 24,
      },
      Presets.shades_classic,
    );
    this.#bar.start(total ?? 0, 0, { rate: '–' });
  }

  /** @param per the number that the rate is of, if it is another than `value` */
  show(value: number, total = this.#total, per = value): void {
    if (this.#bar === undefined) return;
    if (total !== null && total !== this.#total) this.#bar.setTotal(total);
    this.#total = total;
    const seconds = (performance.now() - this.#started) / 1000;
    this.#bar.update(value, { rate: rate(per / Math.max(seconds, 0.001)) });
  }

  end(): void {
    this.#bar?.stop();
  }
}
