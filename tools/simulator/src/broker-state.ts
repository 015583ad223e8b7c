import { type DeliveryState, RowmqError } from '@rowmq/contract';
import type { Message } from './ledger.js';
import type { Depth } from './meter.js';
import { failed, type Run } from './run.js';
import { unaccounted, type Evidence } from './verdict.js';

/** Limit of messages to ask the broker for one by one. Any others count as unproven. */
const LOOK_UPS = 20_000;
const LOOK_UPS_AT_ONCE = 8;
const PAGE = 100;
/** Limit of leftovers to browse per queue and state. */
const LEFTOVERS = 1000;
const STATES = ['ready', 'delayed', 'leased', 'waiting'] as const satisfies DeliveryState[];

/** Depth of all queues of the run together, or null when the broker does not answer. */
export async function depthOf(run: Run): Promise<Depth | null> {
  try {
    const stats = await Promise.all(run.queues.map(async (queue) => (await run.client.getQueue(queue)).stats));
    const sum = (of: keyof Depth) => stats.reduce((total, each) => total + each[of], 0);
    return { ready: sum('ready'), delayed: sum('delayed'), leased: sum('leased'), waiting: sum('waiting') };
  } catch (error) {
    failed(run, error);
    return null;
  }
}

/** All messages of a depth; 0 if it is not known. */
export const depthSum = (depth: Depth | null): number =>
  depth === null ? 0 : depth.ready + depth.delayed + depth.leased + depth.waiting;

export const isEmpty = (depth: Depth | null): boolean => depth !== null && depthSum(depth) === 0;

/**
 * Asks the broker for the facts that the ledger lacks. The caller waits until all producers and
 * consumers have stopped.
 */
export async function gatherEvidence(run: Run, endedAt: number): Promise<Evidence> {
  const drained = isEmpty(await depthOf(run));
  const stillThere = drained ? new Set<number>() : await leftovers(run);
  const unverified = new Set<number>();
  const open = unaccounted(run.ledger, endedAt).filter((message) => !stillThere.has(message));
  for (const message of open.slice(LOOK_UPS)) unverified.add(message);
  const queue = open.slice(0, LOOK_UPS).values();
  const lookUp = async () => {
    for (const message of queue) {
      const presence = await presenceOf(run, run.ledger.messageOf(message) as Message);
      if (presence === 'there') stillThere.add(message);
      if (presence === 'unknown') unverified.add(message);
    }
  };
  await Promise.all(Array.from({ length: LOOK_UPS_AT_ONCE }, lookUp));
  return { endedAt, drained, stillThere, unverified };
}

async function presenceOf(run: Run, message: Message): Promise<'there' | 'gone' | 'unknown'> {
  try {
    const { deliveries } = await run.client.getMessage(message.id ?? '');
    return deliveries.some(({ queue }) => queue === run.queues[message.queue]) ? 'there' : 'gone';
  } catch (error) {
    // The reaper removes settled messages after a while. Then the broker does not know them.
    if (error instanceof RowmqError && error.code === 'delivery-not-found') return 'gone';
    failed(run, error);
    return 'unknown';
  }
}

/**
 * The messages that the broker still shows, up to the limit. Acked ones are among them if the
 * broker broke its promise.
 */
async function leftovers(run: Run): Promise<Set<number>> {
  const idsOf = run.queues.map(() => new Set<string>());
  for (const [index, queue] of run.queues.entries()) {
    for (const state of STATES) await browse(run, queue, state, idsOf[index] as Set<string>);
  }
  const found = run.ledger.messages.filter(({ id, queue }) => id !== undefined && idsOf[queue]?.has(id) === true);
  return new Set(found.map(({ number }) => number));
}

async function browse(run: Run, queue: string, state: DeliveryState, ids: Set<string>): Promise<void> {
  try {
    let after: string | undefined;
    for (let seen = 0; seen < LEFTOVERS; seen += PAGE) {
      const page = await run.client.browse(queue, { state, limit: PAGE, ...(after === undefined ? {} : { after }) });
      for (const { id } of page.messages) ids.add(id);
      if (page.nextAfter === null) return;
      after = page.nextAfter;
    }
  } catch (error) {
    failed(run, error);
  }
}
