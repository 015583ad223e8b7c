import { writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { BrokerUnreachableError, RowmqHttpClient } from '@rowmq/client/core';
import { RowmqError } from '@rowmq/contract';
import { onStopRequest } from '@rowmq/runtime';
import { LiveTable } from './live-table.js';
import { openClient } from './open-client.js';
import { simulate, type Result } from './simulation.js';
import { readSimulatorSettings, UsageError, type SimulatorSettings } from './simulator.config.js';
import { startBroker, type StartedBroker } from './started-broker.js';
import { verdictText } from './verdict-text.js';

const EXIT = { kept: 0, broken: 1, notJudged: 2 } as const;

process.exitCode = await main();

async function main(): Promise<number> {
  let started: StartedBroker | undefined;
  const stop = stopOnSignal(() => started);
  try {
    const settings = readSimulatorSettings(process.argv.slice(2), process.env);
    const url = await findBroker(settings);
    if (url === undefined) {
      console.log(
        `${settings.start ? 'Starting' : `No broker at ${settings.defaultUrl}: starting`} one with a database of its own …`,
      );
      started = await startBroker(settings.apiKey, stop);
    }
    const result = await runAgainst(started?.url ?? url ?? settings.defaultUrl, settings, stop);
    process.stdout.write(verdictText(result));
    await writeReport(result);
    return { OK: EXIT.kept, BROKEN: EXIT.broken, UNPROVEN: EXIT.notJudged }[result.verdict.status];
  } catch (error) {
    if (error instanceof UsageError) return error.exitCode;
    console.error(explain(error));
    return EXIT.notJudged;
  } finally {
    if (started !== undefined) console.log('Stopping the broker that was started for this run …');
    await started?.stop();
  }
}

/**
 * The URL of the broker, or undefined when the simulator has to start one. Throws when the named
 * broker does not answer.
 */
async function findBroker(settings: SimulatorSettings): Promise<string | undefined> {
  if (settings.start) return undefined;
  const url = settings.url ?? settings.defaultUrl;
  const client = new RowmqHttpClient({
    url,
    apiKey: settings.apiKey,
    timeoutMs: settings.timeoutSeconds * 1000,
    retries: 0,
  });
  try {
    if (settings.url !== undefined) await client.ready();
    else if (!(await isReady(client))) return undefined;
    return url;
  } finally {
    await client.close();
  }
}

/** Whether a broker answers and reaches its database. */
async function isReady(client: RowmqHttpClient): Promise<boolean> {
  try {
    await client.ready();
    return true;
  } catch {
    return false;
  }
}

async function runAgainst(url: string, settings: SimulatorSettings, stop: AbortSignal): Promise<Result> {
  const client = openClient(url, settings);
  try {
    console.log(
      `${settings.producers} producers and ${settings.consumers} consumers against ${url} for ${settings.seconds} s, ` +
        `then up to ${settings.drainSeconds} s to drain; seed ${settings.seed}.`,
    );
    return await simulate(client, settings, new LiveTable(process.stdout), stop);
  } finally {
    await client.close();
  }
}

/** Writes all that was measured and the verdict as JSON. The API key stays out. */
async function writeReport(result: Result): Promise<void> {
  const { report } = result.settings;
  if (report === undefined) return;
  const settings = { ...result.settings, apiKey: undefined };
  await writeFile(report, `${JSON.stringify({ ...result, settings }, null, 2)}\n`);
  console.log(`Report: ${resolve(report)}`);
}

/**
 * The first request to stop ends producing, then drains and judges. The second one ends the
 * process.
 */
function stopOnSignal(broker: () => StartedBroker | undefined): AbortSignal {
  const stopping = new AbortController();
  onStopRequest(
    () => {
      console.error('\nStopping: draining the queues for the verdict. Interrupt again to end at once.');
      stopping.abort();
    },
    () => void Promise.resolve(broker()?.stop()).finally(() => process.exit(EXIT.notJudged)),
  );
  return stopping.signal;
}

function explain(error: unknown): string {
  if (error instanceof BrokerUnreachableError) return error.message;
  if (error instanceof RowmqError) return `The broker refused: ${error.message} (${error.code})`;
  if (error instanceof Error)
    return error.name === 'Error' || error.name === 'LedgerFullError' ? error.message : (error.stack ?? error.message);
  return String(error);
}
