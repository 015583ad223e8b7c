import type { RowmqHttpClient } from '@rowmq/client/core';
import type { Finding } from '@rowmq/store/doctor';

/** A duty that was silent for so long is in trouble. */
const SILENT_MS = 15 * 60_000;

/** The state of a broker, as its API tells it. */
export async function* examineBroker(client: RowmqHttpClient): AsyncGenerator<Finding> {
  try {
    await client.live();
  } catch (error) {
    yield { check: 'broker', state: 'fault', text: (error as Error).message };
    return;
  }
  yield { check: 'broker', state: 'ok', text: `It answers at ${client.url}.` };
  yield await attempt('broker ready', async () => {
    await client.ready();
    return { state: 'ok', text: 'It reaches its database.' };
  });
  yield await attempt('broker and reaper', async () => {
    const { leader, duties } = await client.getReaper();
    if (leader === null)
      return {
        state: 'fault',
        text: 'No reaper works: messages do not expire in time, schedules stand still, and disk does not come back. Start one.',
      };
    const silent = duties.filter(({ runs }) => {
      const last = runs.find(({ error }) => error === null);
      return last === undefined || Date.now() - Date.parse(last.startedAt) > SILENT_MS;
    });
    if (silent.length === 0) return { state: 'ok', text: `${leader.reaper} works, and all its duties succeed.` };
    return {
      state: 'warning',
      text: `Duties without a success: ${silent.map(({ duty }) => duty).join(', ')}. See the reaper's log.`,
    };
  });
  yield await attempt('queues', async () => {
    const { queues } = await client.listQueues();
    const endless = queues.filter(
      ({ deadLetterQueue, stats }) =>
        deadLetterQueue === null && stats.ready > 0 && (stats.oldestReadyAgeSeconds ?? 0) > 3600,
    );
    const paused = queues.filter(({ paused: isPaused, producersPaused }) => isPaused || producersPaused);
    const notes = [
      ...(paused.length > 0 ? [`paused: ${some(paused)}`] : []),
      ...(endless.length > 0 ? [`nobody takes messages for more than an hour: ${some(endless)}`] : []),
    ];
    if (notes.length === 0)
      return { state: 'ok', text: `${queues.length} queues, none paused, none that waits for more than an hour.` };
    return { state: 'warning', text: `${notes.join('; ')}. See: rowmq queue show <queue>` };
  });
}

const some = (queues: readonly { name: string }[]): string =>
  `${queues
    .slice(0, 5)
    .map(({ name }) => name)
    .join(', ')}${queues.length > 5 ? ` and ${queues.length - 5} more` : ''}`;

async function attempt(check: string, examine: () => Promise<Omit<Finding, 'check'>>): Promise<Finding> {
  try {
    return { check, ...(await examine()) };
  } catch (error) {
    const { code, message } = error as Error & { code?: string };
    const isHidden = code === 'forbidden' || code === 'unauthorized';
    return { check, state: isHidden ? 'unknown' : 'fault', text: message };
  }
}
