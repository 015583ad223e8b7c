import { inspect, isDeepStrictEqual } from 'node:util';
import { newMessageId, RowmqError } from '@rowmq/contract';
import { FIRST_ID, LEASE_GRACE_MS, type LeasedDelivery, type Queue } from '@rowmq/store';
import { type Dequeue, DequeueRules, type Lease } from './dequeue-rules.js';
import { type Code, type Delivery, LeaseProtocol, type Message, type Receipt } from '@rowmq/client/testing';
import {
  type Cuttable,
  type Demand,
  type History,
  type NewMessage,
  type PickedReceipt,
  QUEUES,
  type Step,
} from './steps.js';
import { type Broker, START, type StoredDelivery, type World } from './world.js';

type StepThat<Does extends Step['does']> = Step & { does: Does };

/**
 * Runs a history on the store and on the model. Throws at the first step after which they differ.
 * At the end it throws if the stored deliveries are not the model's.
 */
export async function runHistory(world: World, { queues, steps }: History): Promise<void> {
  await world.reset(queues);
  const run = new Run(world, new LeaseProtocol(new Map(Object.entries(structuredClone(queues))), START));
  for (const [index, step] of steps.entries()) {
    await run.step(step).catch((cause: unknown) => {
      throw new Error(`Step ${index + 1}: ${String(cause)}`, { cause });
    });
  }
  await run.end().catch((cause: unknown) => {
    throw new Error(`At the end: ${String(cause)}`, { cause });
  });
}

/** Counts events over all histories, to prove that they exercise the store. */
export const tally = new Map<string, number>();

function count(event: string, times = 1): void {
  if (times > 0) tally.set(event, (tally.get(event) ?? 0) + times);
}

class Run {
  private readonly rules: DequeueRules;
  /** All receipts so far, in order. */
  private readonly receipts: Receipt[] = [];
  /** The deliveries of a service's open transaction. */
  private uncommitted: Delivery[] = [];
  private made = 0;
  private stored = 0;

  constructor(
    private readonly world: World,
    private readonly protocol: LeaseProtocol,
  ) {
    this.rules = new DequeueRules(protocol);
  }

  async step(step: Step): Promise<void> {
    await this.take(step);
    await this.world.database.idle();
  }

  /** Dequeues and acks every remaining delivery once. Then nothing may be left. */
  async end(): Promise<void> {
    const { protocol, world } = this;
    await this.commit();
    this.compareStored(await world.stored());
    same('messages stored', await world.countMessages(), this.stored);
    for (const queue of this.rules.paused()) await this.step({ does: 'resume', broker: 0, queue });
    const last = Math.max(0, ...protocol.all().map(({ availableAt }) => availableAt));
    this.setClock(Math.max(last, protocol.now + 1000));
    const left = (queue: string): Delivery[] =>
      protocol.in(queue).filter((one) => one.expiresAt > protocol.now && !protocol.isLeased(one));
    for (let round = 0; round < 10; round += 1) {
      for (const queue of QUEUES.filter((name) => left(name).length > 0)) {
        const demands = [{ maxMessages: 100, leaseSeconds: 43_200 }];
        const requests = [{ queue, demands, acks: [] }];
        await this.step({ does: 'dequeue', broker: round % 2, requests, cut: null });
      }
    }
    same('left after a dequeue of everything', QUEUES.flatMap(left), []);
    const held = this.receipts.filter(({ id, token }) => protocol.owed.get(id)?.token === token);
    await this.ack(
      held.map((receipt) => [receipt]),
      { broker: 0, cut: null },
    );
    if (protocol.owed.size > 0) await this.step({ does: 'expire', cut: null });
    same('left after an ack of everything', protocol.all(), []);
    this.compareStored(await world.stored());
  }

  private async take(step: Step): Promise<void> {
    const { protocol, world } = this;
    switch (step.does) {
      case 'enqueue':
        return this.enqueue(step);
      case 'dequeue':
        return this.dequeue(step);
      case 'ack':
        return this.ack(
          step.requests.flatMap(({ receipts }) => this.byQueue(receipts)),
          step,
        );
      case 'nack':
        return this.nack(step);
      case 'extend':
        return this.extend(step);
      case 'reject':
        return this.reject(step);
      case 'release':
        for (const group of this.byQueue(step.receipts)) {
          await this.broker(step).batches.release(this.toRequest(group));
          for (const receipt of group) count('released', protocol.release(receipt) === null ? 1 : 0);
        }
        return undefined;
      case 'poll':
        return this.poll(step);
      case 'expire':
      case 'deadLetter':
        return this.sweep(step, () => world.reap(step.does), protocol[step.does]());
      case 'redrive':
        return this.redrive(step);
      case 'purge':
        return this.purge(step);
      case 'configure':
        await this.commit();
        Object.assign(protocol.queues.get(step.queue)!, step.settings);
        await this.broker(step).queues.put(step.queue, step.settings);
        return undefined;
      case 'pause':
      case 'resume':
        await this.commit();
        this.rules.setPaused(step.broker, step.queue, step.does === 'pause');
        return this.broker(step).queues.setPaused(step.queue, step.does === 'pause');
      case 'restart':
        this.rules.restart(step.broker);
        world.brokers[step.broker] = world.startBroker();
        return undefined;
      case 'begin':
        return this.begin(step);
      case 'commit':
        return this.commit();
      case 'rollBack':
        this.uncommitted = [];
        return world.endTransaction('rollback');
      case 'wait':
        return this.setClock(protocol.now + step.ms);
      case 'waitFor':
        return this.waitFor(step);
    }
  }

  private async enqueue({ broker, requests, cut }: StepThat<'enqueue'>): Promise<void> {
    const made = requests.map(({ queue, messages }) => ({ queue, messages: messages.map((one) => this.make(one)) }));
    const { batches } = this.broker({ broker });
    const { result, wasCut } = await this.world.cutting(cut, () =>
      batches.enqueue(
        made.map(({ queue, messages }) => ({
          queueName: queue,
          messages: messages.map((one) => ({
            ...one,
            id: Buffer.from(one.id, 'hex'),
            body: Buffer.from(one.body),
            headers: null,
          })),
        })),
      ),
    );
    count('cut', wasCut ? 1 : 0);
    const outcomes = result.map((outcome) => (outcome === null ? null : codeOf(outcome)));
    same(
      'enqueue',
      outcomes,
      made.map(({ queue, messages }) => {
        const drafts = this.protocol.draft(queue, messages);
        if (typeof drafts === 'string') return drafts;
        this.store(drafts, this.rules.knowsEnqueuesOf(broker, queue) ? broker : null);
        return null;
      }),
    );
    for (const outcome of outcomes) count(outcome ?? 'enqueued');
  }

  /**
   * Dequeues like a broker: it settles the acks that the requests carry, skips paused queues, and
   * repeats a dequeue that found nothing but may find more.
   */
  private async dequeue(step: StepThat<'dequeue'>): Promise<void> {
    const carried = step.requests
      .map(({ queue, acks }) => this.picked(acks).map((receipt) => ({ ...receipt, queue })))
      .filter((group) => group.length > 0);
    await this.ack(carried, step);
    count('acks carried', carried.flat().length);
    const { broker, requests } = step;
    const cut = carried.length === 0 ? step.cut : null;
    const { batches, queues } = this.broker({ broker });
    const open: { queue: Queue; demands: readonly Demand[] }[] = [];
    for (const { queue: name, demands } of requests) {
      const queue = await queues.get(name);
      if (!queue.paused) open.push({ queue, demands });
    }
    const answers = new Map<string, Answer>();
    const ask = async (): Promise<void> => {
      let wanting = open.filter(({ queue }) => !answers.get(queue.name)?.leased.flat().length);
      for (let tries = 0; tries < 5 && wanting.length > 0; tries += 1) {
        const outcomes = await batches.dequeue(wanting);
        for (const [index, { leased, claimAgain }] of outcomes.entries()) {
          answers.set(wanting[index]!.queue.name, { leased, mayBeMore: await claimAgain });
        }
        wanting = wanting.filter(({ queue }) => {
          const { leased, mayBeMore } = answers.get(queue.name)!;
          return mayBeMore && leased.flat().length === 0;
        });
      }
    };
    const { wasCut } = await this.world.cutting(cut, ask);
    // The lost connection's transaction may have held locks on some until the server noticed.
    if (wasCut) await ask();
    await this.world.database.idle();
    count('cut', wasCut ? 1 : 0);
    const dequeues = requests.map(({ queue, demands }): Dequeue => {
      const { leased, mayBeMore } = answers.get(queue) ?? { leased: [], mayBeMore: false };
      const handedOut = leased.map((all) => all.map(toLease));
      const isShared = requests.length > 1;
      return { broker, queue, demands, leased: handedOut, mayBeMore, isShared, isRepeated: wasCut };
    });
    for (const one of dequeues) await this.findAgain(this.rules.inTheWay(one), one);
    for (const one of dequeues) {
      this.rules.dequeue(one);
      this.receipts.push(...one.leased.flat().map(({ id, token }) => ({ queue: one.queue, id, token })));
      count('handed out', one.leased.flat().length);
    }
    for (const one of dequeues) await this.findAgain(this.rules.mayBeReleased(one), one);
  }

  /** Reads the deliveries that a dequeue may have changed without handing them out. */
  private async findAgain(deliveries: readonly Delivery[], dequeue: Dequeue): Promise<void> {
    if (deliveries.length === 0) return;
    const stored = await this.world.stored(deliveries.map(({ id }) => id));
    for (const one of deliveries) {
      const seen = stored.get(one.id);
      if (seen === undefined) count('expired on sight');
      else if (seen.queue !== one.queue) count('dead-lettered on sight');
      this.rules.foundAt(one, seen, dequeue);
    }
  }

  private async ack(groups: readonly Receipt[][], step: Pick<StepThat<'ack'>, 'broker' | 'cut'>): Promise<void> {
    if (groups.length === 0) return;
    const { batches } = this.broker(step);
    const { result, wasCut } = await this.cutting(step.cut, () =>
      batches.ack(groups.map((group) => this.toRequest(group))),
    );
    const settle = (receipt: Receipt): Code | null => this.protocol.ack(receipt);
    same(
      'ack',
      result,
      wasCut ? this.settleRepeated(groups, settle, result) : groups.map((group) => group.map(settle)),
    );
    for (const outcome of result.flat()) count(outcome ?? 'ack');
  }

  /**
   * If the answer of a COMMIT was lost, the retry runs after the first attempt's settlements. A
   * refused receipt may then get `delivery-not-found`.
   */
  private settleRepeated(
    groups: readonly Receipt[][],
    settle: (receipt: Receipt) => Code | null,
    answered: readonly (string | null)[][],
  ): (Code | null)[][] {
    const first = groups.map((group) => group.map(settle));
    return groups.map((group, index) =>
      group.map((receipt, position) => {
        const before = first[index]![position]!;
        const after = before === null ? null : settle(receipt);
        return answered[index]![position] === after ? after : before;
      }),
    );
  }

  private async nack(step: StepThat<'nack'>): Promise<void> {
    const requests = step.requests.flatMap(({ receipts, delaySeconds }) =>
      this.byQueue(receipts).map((group) => ({ group, delaySeconds })),
    );
    if (requests.length === 0) return;
    const { result } = await this.cutting(step.cut, () =>
      this.broker(step).batches.nack(
        requests.map(({ group, delaySeconds }) => ({ ...this.toRequest(group), delaySeconds })),
      ),
    );
    same(
      'nack',
      result,
      requests.map(({ group, delaySeconds }) => group.map((receipt) => this.protocol.nack(receipt, delaySeconds))),
    );
    for (const outcome of result.flat()) count(outcome ?? 'nack');
  }

  private async extend(step: StepThat<'extend'>): Promise<void> {
    const requests = step.requests.flatMap(({ receipts, leaseSeconds }) =>
      this.byQueue(receipts).map((group) => ({ group, leaseSeconds })),
    );
    if (requests.length === 0) return;
    const { result } = await this.cutting(step.cut, () =>
      this.broker(step).batches.extend(
        requests.map(({ group, leaseSeconds }) => ({ ...this.toRequest(group), leaseSeconds })),
      ),
    );
    same(
      'extend',
      result,
      requests.map(({ group, leaseSeconds }) => ({
        outcomes: group.map((receipt) => this.protocol.extend(receipt, leaseSeconds)),
        leaseExpiresAt: this.protocol.now + leaseSeconds * 1000,
      })),
    );
    for (const { outcomes } of result) for (const outcome of outcomes) count(outcome ?? 'extend');
  }

  private async reject(step: StepThat<'reject'>): Promise<void> {
    for (const group of this.byQueue(step.receipts)) {
      const { result, wasCut } = await this.cutting(step.cut, () =>
        this.broker(step)
          .batches.reject(this.toRequest(group))
          .catch((error: unknown) => group.map(() => codeOf(error))),
      );
      const settle = (receipt: Receipt): Code | null => this.protocol.reject(receipt);
      const expected = wasCut ? this.settleRepeated([group], settle, [result]).flat() : group.map(settle);
      same('nack with deadLetter', result, expected);
      for (const outcome of result) count(outcome ?? 'reject');
    }
  }

  /**
   * Checks the poll. A queue that it reports must have an available delivery, even if that expired
   * or exceeded its receives. A queue that it omits must have none ready.
   */
  private async poll(step: StepThat<'poll'>): Promise<void> {
    const { ids } = this.world;
    const found = await this.broker(step).batches.poll([...ids.values()]);
    for (const queue of QUEUES) {
      const deliveries = this.protocol.in(queue);
      const isFound = found.has(ids.get(queue)!);
      const isThere = deliveries.some(({ availableAt }) => availableAt <= this.protocol.now);
      if (isFound) same(`the poll found something in ${queue}`, isThere, true);
      else
        same(
          `the poll overlooked ${queue}`,
          deliveries.filter((one) => this.protocol.isReady(one)),
          [],
        );
    }
  }

  private async redrive({ queue, rows, cut }: StepThat<'redrive'>): Promise<void> {
    // With this limit a retry finds no further deliveries to move.
    const most = cut === null ? rows : 500;
    const { moved, skipped } = this.protocol.redrive(queue, most);
    count(
      'redriven',
      [...moved.values()].reduce((sum, some) => sum + some, 0),
    );
    const work = async () => {
      const batch = await this.world.unleased.redrive(this.id(queue), FIRST_ID, most);
      const named = [...batch.moved].map(([target, some]): [string, number] => [this.world.nameOf(target), some]);
      return { moved: new Map(named), skipped: batch.skipped, left: batch.left };
    };
    return this.sweep({ cut }, work, { moved, skipped, left: 0 });
  }

  private async purge({ queue, cut }: StepThat<'purge'>): Promise<void> {
    const expected = this.protocol.purge(queue);
    count('purged', expected.purged);
    const work = async () => {
      const last = await this.world.unleased.lastId(this.id(queue));
      if (last === null) return { purged: 0, left: 0 };
      const { purged, left } = await this.world.unleased.purge(this.id(queue), FIRST_ID, last, 500);
      return { purged, left };
    };
    return this.sweep({ cut }, work, expected);
  }

  /**
   * Runs a verb that walks whole queues. After a cut the counts may be too low, and the verb skips
   * rows that the lost session still locks. It therefore runs again.
   */
  private async sweep<T>({ cut }: Cuttable, work: () => Promise<T>, expected: T): Promise<void> {
    const { result, wasCut } = await this.cutting(cut, work);
    if (wasCut) await work();
    else same('counts', result, expected);
  }

  private async begin({ queue, messages }: StepThat<'begin'>): Promise<void> {
    await this.commit();
    const made = messages.map((one) => this.make(one));
    const outcome = await this.world.beginTransaction(
      queue,
      made.map(({ id: _, ...one }) => ({ ...one, bodyEncoding: 'utf8' as const })),
    );
    const ids = typeof outcome === 'string' ? [] : outcome;
    const drafts = this.protocol.draft(
      queue,
      made.map((one, index) => ({ ...one, id: ids[index] ?? one.id })),
    );
    same(
      'enqueue in a transaction',
      typeof outcome === 'string' ? outcome : null,
      typeof drafts === 'string' ? drafts : null,
    );
    this.uncommitted = typeof drafts === 'string' ? [] : drafts;
  }

  private async commit(): Promise<void> {
    await this.world.endTransaction('commit');
    this.store(this.uncommitted, null);
    this.uncommitted = [];
  }

  private store(drafts: readonly Delivery[], broker: number | null): void {
    this.protocol.store(drafts, broker);
    this.stored += drafts.length;
  }

  /** Moves the clock to an instant at which a state may change, or to a moment before or after. */
  private waitFor({ nth, ms }: StepThat<'waitFor'>): void {
    const { now } = this.protocol;
    const instants = this.protocol
      .all()
      .flatMap(({ availableAt, expiresAt }) => [availableAt, availableAt - LEASE_GRACE_MS, expiresAt])
      .filter((instant) => instant > now)
      .toSorted((one, other) => one - other);
    const instant = instants[nth % Math.max(instants.length, 1)];
    if (instant !== undefined) this.setClock(instant + ms);
  }

  private setClock(now: number): void {
    this.protocol.now = now;
    this.world.now = now;
  }

  private compareStored(stored: ReadonlyMap<string, StoredDelivery>): void {
    const { owed } = this.protocol;
    for (const id of new Set([...stored.keys(), ...owed.keys()])) {
      const one = owed.get(id);
      const { queue, priority, receiveCount, availableAt, expiresAt, token } = one ?? {};
      const expected = one && { queue, priority, receiveCount, availableAt, expiresAt, token };
      same(`delivery ${id}`, stored.get(id), expected);
    }
  }

  private async cutting<T>(cut: Cuttable['cut'], work: () => Promise<T>): Promise<{ result: T; wasCut: boolean }> {
    const outcome = await this.world.cutting(cut, work);
    count('cut', outcome.wasCut ? 1 : 0);
    return outcome;
  }

  private make({ priority, delaySeconds, expiresInSeconds }: NewMessage): Message {
    this.made += 1;
    return {
      id: newMessageId().toString('hex'),
      body: `message ${this.made}`,
      priority,
      delaySeconds,
      expiresInSeconds,
    };
  }

  /** Groups the picked receipts by the queue that they are sent to. */
  private byQueue(picks: readonly PickedReceipt[]): Receipt[][] {
    const groups = new Map<string, Receipt[]>();
    for (const receipt of this.picked(picks)) {
      groups.set(receipt.queue, [...(groups.get(receipt.queue) ?? []), receipt]);
    }
    return [...groups.values()];
  }

  private picked(picks: readonly PickedReceipt[]): Receipt[] {
    return picks.flatMap(({ nth, as }) => {
      const given = this.receipts.at(-1 - (nth % this.receipts.length));
      if (given === undefined) return [];
      const receipt = { ...given };
      if (as === 'sent to another queue') receipt.queue = QUEUES.find((other) => other !== given.queue)!;
      if (as === 'with no token') receipt.token = '00'.repeat(8);
      if (as === 'with another token') receipt.token = 'fe'.repeat(8);
      return [receipt];
    });
  }

  private toRequest(group: readonly Receipt[]) {
    return {
      queueId: this.id(group[0]!.queue),
      receipts: group.map(({ id, token }) => ({
        messageId: Buffer.from(id, 'hex'),
        leaseToken: Buffer.from(token, 'hex'),
      })),
    };
  }

  private broker({ broker }: { broker: number }): Broker {
    return this.world.brokers[broker]!;
  }

  private id(queue: string): number {
    return this.world.ids.get(queue)!;
  }
}

/** A batch's answer for one queue. */
interface Answer {
  leased: LeasedDelivery[][];
  mayBeMore: boolean;
}

function toLease({ messageId, leaseToken, body, ...lease }: LeasedDelivery): Lease {
  const { priority, receiveCount, expiresAt, leaseExpiresAt } = lease;
  const id = messageId.toString('hex');
  return {
    id,
    token: leaseToken.toString('hex'),
    body: body.toString(),
    priority,
    receiveCount,
    expiresAt,
    leaseExpiresAt,
  };
}

function same(what: string, actual: unknown, expected: unknown): void {
  if (isDeepStrictEqual(actual, expected)) return;
  const [store, model] = [actual, expected].map((value) => inspect(value, { depth: 9, breakLength: Infinity }));
  throw new Error(`${what}: the store says ${store}, the model ${model}`);
}

/** Rethrows an error that is no refusal. */
function codeOf(error: unknown): string {
  if (error instanceof RowmqError) return error.code;
  throw error;
}
