import { setTimeout as sleep } from 'node:timers/promises';
import type { Browser, CDPSession, Page } from 'playwright-core';
import { startChromium } from '../test/support/start-chromium.js';
import { BrokerLoad } from './harness/broker-load.js';
import { median, type Quantiles, quantiles } from './harness/figures.js';
import { type Load, PACED_200 } from './harness/load.js';
import { number, table } from './harness/markdown.js';
import { benchCommand, type BenchOptions, notNegative, positive } from './harness/options.js';
import { publish } from './harness/publish.js';
import { onEachServer, type Rig } from './harness/rig.js';
import { interleave, measureAndStop, type Scenario } from './harness/scenario.js';
import type { Stretch } from './harness/stretch.js';
import { eachScenario, type ServerResults } from './harness/tables.js';

interface Options extends BenchOptions {
  pages: number[];
  queues: number;
}

/** The memory that the script of a page uses after a garbage collection. */
interface PageMegabytes {
  start: number;
  half: number;
  end: number;
}

/** Stands among the latencies of a load. */
const FIRST_PAINT = 'first paint';

/** Measures a broker at work while nobody, one person and many people look at its dashboard. */
export async function main(args: readonly string[], rig?: Rig): Promise<void> {
  const options = readOptions(args);
  const browser = await startChromium();
  try {
    const scenarios = options.pages.map((pages) => watched(browser, pages, options.queues));
    const results = await onEachServer({ ...options, rig }, (on) => interleave(on, scenarios, options.runs, options));
    await publish({
      title: 'The dashboard',
      script: 'bench:dashboard',
      args,
      options,
      results,
      markdown: toMarkdown(results, options),
    });
  } finally {
    await browser.close();
  }
}

function readOptions(args: readonly string[]): Options {
  const defaults = { runs: 3, seconds: 20, json: 'dashboard' };
  return benchCommand('bench:dashboard', 'What open pages of the dashboard cost a broker.', defaults)
    .option('--pages <counts>', 'how many are open, with commas between', counts, [0, 1, 20])
    .option('--queues <count>', 'how many they show', positive, 50)
    .parse(args, { from: 'user' })
    .opts<Options>();
}

function counts(text: string): number[] {
  return text.split(',').map(notNegative);
}

function nameOf(pages: number): string {
  return pages === 1 ? '1 page' : `${pages} pages`;
}

/** A steady load on one queue, and so many pages that show all of them. */
function watched(browser: Browser, pages: number, queues: number): Scenario {
  const name = nameOf(pages);
  return {
    name,
    run: async (rig, timing) => {
      const broker = await rig.broker();
      const names = await rig.newQueues(queues);
      const opened = await Promise.all(Array.from({ length: pages }, () => openPage(browser, broker.url)));
      const load = await BrokerLoad.start(broker.url, { ...PACED_200, queues: names });
      const memory = memoryDuring(opened, timing.seconds);
      const stretch = await measureAndStop(rig, broker, new WatchedLoad(load, opened), timing);
      const measured = { ...stretch, pageMegabytes: await memory };
      await Promise.all(opened.map(({ page }) => page.context().close()));
      return { [name]: measured };
    },
  };
}

/** A page that shows all queues. */
interface OpenPage {
  page: Page;
  cdp: CDPSession;
  firstPaintMs: number;
}

async function openPage(browser: Browser, url: string): Promise<OpenPage> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 850 } });
  const page = await context.newPage();
  await page.goto(`${url}/dashboard`);
  await page.getByRole('table').first().waitFor();
  const firstPaintMs = await page.evaluate<number>(
    `performance.getEntriesByName('first-contentful-paint')[0].startTime`,
  );
  const cdp = await context.newCDPSession(page);
  await cdp.send('Performance.enable');
  return { page, cdp, firstPaintMs };
}

/** Looks at the pages now, and after a half and the whole of a time. Medians of all pages. */
async function memoryDuring(opened: readonly OpenPage[], seconds: number): Promise<PageMegabytes> {
  const look = async (): Promise<number> => median(await Promise.all(opened.map(async ({ cdp }) => megabytes(cdp))));
  const start = await look();
  await sleep(seconds * 500);
  const half = await look();
  await sleep(seconds * 500);
  return { start, half, end: await look() };
}

async function megabytes(cdp: CDPSession): Promise<number> {
  await cdp.send('HeapProfiler.collectGarbage');
  const { metrics } = await cdp.send('Performance.getMetrics');
  return (metrics.find(({ name }) => name === 'JSHeapUsedSize')?.value ?? Number.NaN) / 1024 ** 2;
}

/** A load, with the first paint of the pages that watch it. */
class WatchedLoad implements Load {
  readonly isIdle = false;

  constructor(
    private readonly load: Load,
    private readonly pages: readonly OpenPage[],
  ) {}

  get ended(): Promise<void> {
    return this.load.ended;
  }

  done(): number {
    return this.load.done();
  }

  takeLatencies(): Record<string, Quantiles> {
    const latencies = this.load.takeLatencies();
    if (this.pages.length === 0) return latencies;
    return { ...latencies, [FIRST_PAINT]: quantiles(this.pages.map(({ firstPaintMs }) => firstPaintMs)) };
  }

  async stop(): Promise<void> {
    await this.load.stop();
  }
}

function toMarkdown(results: ServerResults, { queues, runs, seconds }: Options): string {
  const head = [
    'server',
    'scenario',
    'broker, % of a core',
    'more than without pages',
    'database, % of a core',
    'first paint of a page, ms: median / slowest',
    'MiB of a page: start → half → end',
    'broker MiB, start → end',
  ];
  const without = (server: string): number => results[server]?.[nameOf(0)]?.median.cpuPercent.broker ?? Number.NaN;
  const rows = eachScenario(results).map(([server, name, { median: figures }]) => {
    const { broker, database } = figures.cpuPercent;
    const paint = figures.latencyMs[FIRST_PAINT];
    const { start, half, end } = (figures as Stretch & { pageMegabytes: PageMegabytes }).pageMegabytes;
    return [
      server,
      name,
      number(broker),
      Number.isNaN(without(server)) ? '–' : `**${number(broker - without(server))}**`,
      number(database),
      paint ? `${number(paint.p50, 0)} / ${number(paint.max, 0)}` : '–',
      paint ? [start, half, end].map((each) => number(each)).join(' → ') : '–',
      `${number(figures.brokerMegabytes.start, 0)} → ${number(figures.brokerMegabytes.end, 0)}`,
    ];
  });
  return `A broker takes and hands out 200 messages/s in one of its ${queues} queues. Meanwhile pages of its
dashboard are open in Chromium and show all queues. Pages of one scenario open at the same time, on
the broker's machine. The memory of a page is that of its script after a garbage collection. Medians
of ${runs} stretches of ${seconds} s, in rounds.

${table(head, rows)}`;
}
