import { isDeepStrictEqual } from 'node:util';
import { matches, PACK_MESSAGES, RowmqError } from '@rowmq/contract';
import {
  FIRST_ID,
  LEASE_GRACE_MS,
  type LeasedMessage,
  type PublishOutcome,
  type Queue,
  type Reservation,
} from '@rowmq/store';
import { count, same } from './compare.js';
import { DequeueRules, type Lease, packOf } from './dequeue-rules.js';
import {
  type Code,
  type Delivery,
  EarlierEnqueues,
  keyOf,
  LeaseProtocol,
  type Message,
  type Receipt,
  type Settings,
} from '@rowmq/client/testing';
import { MemoryMoves } from '../../libs/client/src/testing/memory-moves.js';
import { Jobs } from './jobs.js';
import {
  type Cuttable,
  type Demand,
  type History,
  type NewMessage,
  type PickedReceipt,
  QUEUES,
  TOPIC,
  type Step,
} from './steps.js';
import { type Broker, DEDUPLICATION_SECONDS, START, type StoredDelivery, type World } from './world.js';

/** A message that may name one that was enqueued before. */
type Sent = Message & Pick<NewMessage, 'deduplicationId'>;

type StepThat<Does extends Step['does']> = Step & { does: Does };

/**
 * Runs a history on the store and on the model. Throws at the first step after which they differ.
 * At the end it throws if the stored deliveries are not the model's.
 */
export async function runHistory(world: World, { queues, steps }: History): Promise<void> {
  await world.reset(queues);
  const moves = new MemoryMoves();
  const protocol: LeaseProtocol = new LeaseProtocol(
    new Map(Object.entries(structuredClone(queues))),
    START,
    (delivery, cause) => moves.add(delivery, cause, null, protocol.now),
  );
  const run = new Run(world, protocol, moves);
  for (const [index, step] of steps.entries()) {
    await run.step(step).catch((cause: unknown) => {
      throw new Error(`Step ${index + 1}: ${String(cause)}`, { cause });
    });
  }
  await run.end().catch((cause: unknown) => {
    throw new Error(`At the end: ${String(cause)}`, { cause });
  });
}

/** A broker may know a queue's settings and depth of this long ago. */
const KNOWN_MS = 1000;

/** Names a delivery by its message and the queue in which it began. */
function asBegun({ id, origin }: Pick<Delivery, 'id' | 'origin'>): string {
  return `${id} ${origin}`;
}

const LAST_ID = Buffer.alloc(16, 255);

class Run {
  private readonly rules: DequeueRules;
  /** Settings that another broker's change has replaced. */
  private readonly replaced: { queue: string; settings: Settings; broker: number; at: number }[] = [];
  /** The broker on which each message was enqueued, and when. */
  private readonly enqueuedOn = new Map<string, { broker: number | null; at: number }>();
  /** All receipts so far, in order. */
  private readonly receipts: Receipt[] = [];
  /** The hints that the store wrote into each receipt. */
  private readonly hints = new Map<string, { part: number; members: number }>();
  private readonly earlier = new EarlierEnqueues();
  private readonly published = new EarlierEnqueues();
  /** The enqueue of a service's open transaction. */
  private uncommitted:
    { queue: string; drafts: Delivery[]; fresh: Sent[]; ids: ReadonlySet<string | undefined>; at: number } | undefined;
  private made = 0;
  private stored = 0;
  /** By queue, the messages that began there. */
  private readonly begun = new Map<string, Set<string>>();
  /** Deliveries that were cancelled or purged, by the name of {@link asBegun}. */
  private readonly withdrawn = new Set<string>();
  /** Deliveries that had expired when they were purged: they may have been removed before. */
  private readonly mayBeWithdrawn = new Set<string>();
  private readonly jobs: Jobs;

  constructor(
    private readonly world: World,
    private readonly protocol: LeaseProtocol,
    moves: MemoryMoves,
  ) {
    this.rules = new DequeueRules(protocol);
    this.jobs = new Jobs({
      world,
      protocol,
      moves,
      cutting: (cut, work) => this.cutting(cut, work),
      settled: (before) => this.noteWithdrawn(before),
      expectStored: (deliveries) => this.compareSome(deliveries),
    });
  }

  async step(step: Step): Promise<void> {
    this.world.steps += 1;
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
    await this.drain();
    if (protocol.owed.size > 0) await this.step({ does: 'expire', cut: null });
    // Some have expired, and are dead letters.
    if (protocol.owed.size > 0) await this.drain();
    same('left after an ack of everything', protocol.all(), []);
    this.compareStored(await world.stored());
  }

  /** Dequeues and acks what has not expired. */
  private async drain(): Promise<void> {
    const { protocol } = this;
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
    const held = this.receipts.filter(({ id, token }) => protocol.copies(id).some((one) => one.token === token));
    await this.ack(
      held.map((receipt) => [receipt]),
      { broker: 0, cut: null },
    );
  }

  private async take(step: Step): Promise<void> {
    const { protocol, world } = this;
    switch (step.does) {
      case 'enqueue':
        return this.enqueue(step);
      case 'publish':
        return this.publish(step);
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
        return this.release(step);
      case 'cancel':
        return this.cancel(step);
      case 'poll':
        return this.poll(step);
      case 'expire':
      case 'deadLetter':
        return this.sweep(step, () => world.reap(step.does), protocol[step.does]());
      case 'redrive':
        return this.redrive(step);
      case 'purge':
        return this.purge(step);
      case 'replay':
        return this.replay(step.queue);
      case 'startJob':
        return this.jobs.start(step);
      case 'runJob':
        return this.jobs.run(step);
      case 'leaveJob':
        return this.jobs.leave(step);
      case 'cancelJob':
        return this.jobs.cancel(step);
      case 'configure':
        await this.commit();
        if (leadsNowhere(protocol.queues, step)) {
          const put = this.broker(step).queues.put(step.queue, step.settings);
          const outcome = await put.then(() => 'done', refusalOf);
          return same('refused settings', outcome, 'invalid-request');
        }
        this.replaced.push({
          queue: step.queue,
          settings: { ...protocol.queues.get(step.queue)! },
          broker: step.broker,
          at: protocol.now,
        });
        Object.assign(protocol.queues.get(step.queue)!, step.settings);
        await this.broker(step).queues.put(step.queue, step.settings);
        return undefined;
      case 'pause':
      case 'resume':
        await this.commit();
        this.rules.setPaused(step.broker, step.queue, step.does === 'pause');
        await this.broker(step).queues.setPaused(step.queue, { paused: step.does === 'pause' });
        return undefined;
      case 'restart':
        this.rules.restart(step.broker);
        this.jobs.restart(step.broker);
        world.brokers[step.broker] = world.startBroker();
        return undefined;
      case 'begin':
        return this.begin(step);
      case 'commit':
        return this.commit();
      case 'rollBack':
        this.uncommitted = undefined;
        return world.endTransaction('rollback');
      case 'wait':
        return this.setClock(protocol.now + step.ms);
      case 'waitFor':
        return this.waitFor(step);
    }
  }

  private async publish({ broker, messages, waiting, cut }: StepThat<'publish'>): Promise<void> {
    const made = messages.map((one) => ({ kind: one.kind, ...this.make(one) }));
    const reserved: { queue: string; consumers: Consumer[] }[] = [];
    const reserve = ({ name: queue }: Queue): Reservation[] => {
      const consumers = waiting[queue]!.map((demand) => new Consumer(demand));
      reserved.push({ queue, consumers });
      return consumers;
    };
    const request = {
      topicName: TOPIC.name,
      messages: made.map(({ id: _, kind, ...one }) => ({
        ...one,
        body: Buffer.from(one.body),
        headers: Buffer.from(JSON.stringify({ kind })),
        values: { kind },
      })),
    };
    const { result, wasCut } = await this.cutting(cut, () =>
      this.broker({ broker }).batches.publish([request], { reserve }),
    );
    const [outcome] = result as [PublishOutcome];
    const refusal = outcome instanceof Error ? refusalOf(outcome) : null;
    count(refusal ?? 'published');
    const ids = outcome instanceof Error ? [] : outcome.map(({ id }) => id.toString('hex'));
    const firsts = this.published.firsts(TOPIC.name, made, this.protocol.now);
    const drafts = TOPIC.subscriptions.map(({ queue, filter }, copy) => {
      const wanted = made.flatMap(({ kind, ...one }, index) =>
        firsts[index] === undefined && matches(filter, { kind }) ? [{ ...one, id: ids[index] ?? one.id }] : [],
      );
      if (wanted.length === 0) return [];
      const ofQueue = this.draft(broker, queue, wanted, refusal);
      return Array.isArray(ofQueue) ? ofQueue.map((one): Delivery => ({ ...one, copy })) : ofQueue;
    });
    // Times are checked before room is.
    const codes = drafts.filter((one) => !Array.isArray(one));
    const expected = codes.find((code) => code === refusal) ?? codes[0] ?? null;
    same('publish', refusal, expected);
    for (const { consumers } of reserved) for (const one of consumers) one.check();
    if (outcome instanceof Error) return;
    const stored = drafts.flatMap((one) => (Array.isArray(one) ? one : []));
    const queues = made.map((_, index) =>
      firsts[index] === undefined ? stored.filter(({ id }) => id === ids[index]).map(({ queue }) => queue) : [],
    );
    same(
      'queues',
      outcome.map((one) => one.queues),
      queues,
    );
    const idOf = new Map(made.map(({ id }, index) => [id, ids[index]!]));
    same(
      'duplicates of a topic',
      outcome.map(({ id, duplicate }) => (duplicate ? id.toString('hex') : null)),
      firsts.map((first) => (first === undefined ? null : (idOf.get(first.id) ?? first.id))),
    );
    const named = made
      .map((one, index) => ({ ...one, id: ids[index]! }))
      .filter((_, index) => firsts[index] === undefined);
    for (const { id, kind } of named) this.jobs.kinds.set(id, kind);
    this.published.rememberMessages(TOPIC.name, named, this.protocol.now, DEDUPLICATION_SECONDS);
    count('duplicate of a topic', made.length - named.length);
    for (const { queue } of TOPIC.subscriptions) {
      const ofQueue = stored.filter((one) => one.queue === queue);
      this.store(ofQueue, { broker, isKnown: this.rules.knowsEnqueuesOf(broker, queue) });
    }
    // The messages that nobody wants are not stored, and the others once.
    this.stored -= stored.length - new Set(stored.map(({ id }) => id)).size;
    const last = new Map(reserved.map(({ queue, consumers }) => [queue, consumers]));
    for (const [queue, consumers] of last) this.handOff(queue, consumers, stored, wasCut);
  }

  private async enqueue({ broker, requests, cut }: StepThat<'enqueue'>): Promise<void> {
    const made = requests.map(({ queue, messages }) => ({ queue, messages: messages.map((one) => this.make(one)) }));
    const reserved: { queue: string; consumers: Consumer[] }[] = [];
    const reserve = ({ name: queue }: Queue): Reservation[] => {
      const consumers = requests
        .filter((one) => one.queue === queue)
        .flatMap(({ waiting }) => waiting.map((demand) => new Consumer(demand)));
      reserved.push({ queue, consumers });
      return consumers;
    };
    const isBehind = made.some(({ queue, messages }) => this.isInTransaction(queue, messages));
    const refusedBefore = made.map(({ queue, messages }) => this.refusedAlready(queue, messages));
    const { result, wasCut } = await this.cutting(isBehind ? null : cut, () => {
      const enqueued = this.broker({ broker }).batches.enqueue(
        made.map(({ queue, messages }) => ({
          queueName: queue,
          messages: messages.map(({ id: _, ...one }) => ({ ...one, body: Buffer.from(one.body), headers: null })),
        })),
        { reserve },
      );
      return isBehind ? this.commitBefore(enqueued) : enqueued;
    });
    const stored: Delivery[] = [];
    const withGroups: Delivery[] = [];
    for (const [index, outcome] of result.entries()) {
      const { queue, messages } = made[index]!;
      const refusal = outcome instanceof Error ? refusalOf(outcome) : null;
      count(refusal ?? 'enqueued');
      // A request that is refused in any case need not wait for the commit. The other answer means
      // that the machine was too slow for the commit to come in time.
      if (isBehind && refusal !== null && [refusedBefore[index], 'enqueue-in-progress'].includes(refusal)) continue;
      const firsts = this.earlier.firsts(queue, messages, this.protocol.now);
      const fresh = messages.filter((_, nth) => firsts[nth] === undefined);
      const drafts = this.draft(broker, queue, fresh, refusal);
      same('enqueue', refusal, Array.isArray(drafts) ? null : drafts);
      if (!Array.isArray(drafts) || outcome instanceof Error) continue;
      const ids = new Map(messages.map(({ id }, nth) => [id, outcome[nth]!.id.toString('hex')]));
      same(
        'duplicates',
        outcome.map(({ id, duplicate }) => (duplicate ? id.toString('hex') : null)),
        firsts.map((first) => (first === undefined ? null : (ids.get(first.id) ?? first.id))),
      );
      count('duplicate', messages.length - fresh.length);
      const named = drafts.map((one): Delivery => ({ ...one, id: ids.get(one.id)! }));
      this.remember(queue, fresh, (id) => ids.get(id)!, this.protocol.now);
      this.store(named, { broker, isKnown: this.rules.knowsEnqueuesOf(broker, queue) });
      stored.push(...named);
      withGroups.push(...named.filter((_, nth) => fresh[nth]!.groupId !== undefined));
    }
    for (const { consumers } of reserved) for (const one of consumers) one.check();
    // The store asks again if it has to store the batch again.
    const last = new Map(reserved.map(({ queue, consumers }) => [queue, consumers]));
    for (const [queue, consumers] of last) this.handOff(queue, consumers, stored, wasCut);
    await this.learnPlaces(withGroups);
  }

  /** A message with a group joins the line of its priority anywhere from its head to its end. */
  private async learnPlaces(drafts: readonly Delivery[]): Promise<void> {
    const { now } = this.protocol;
    const joined = drafts
      .map((one) => this.protocol.owed.get(keyOf(one))!)
      .filter((one) => one.availableAt === now && one.token === null);
    const places = await this.world.stored(joined.map(({ id }) => id));
    const heads = joined.map(({ queue, priority }) => {
      const ready = this.protocol.in(queue).filter((one) => one.priority === priority && one.availableAt <= now);
      return Math.min(now - 1, ...ready.map(({ availableAt }) => availableAt)) - 1;
    });
    for (const [nth, one] of joined.entries()) {
      const place = places.get(keyOf(one))?.availableAt ?? NaN;
      same(`${one.id} is at ${place}, in line`, place >= heads[nth]! && place <= now, true);
      if (place < now) count('ahead in line');
      one.availableAt = place;
    }
  }

  /** Whether a service's open transaction enqueues one of these ids, too. */
  private isInTransaction(queue: string, messages: readonly Sent[]): boolean {
    const { queue: name, ids } = this.uncommitted ?? {};
    return name === queue && messages.some(({ deduplicationId: id }) => id !== undefined && ids?.has(id));
  }

  /** Why an enqueue would be refused now. Undefined: it would not be. */
  private refusedAlready(queue: string, messages: readonly Sent[]): Code | undefined {
    const firsts = this.earlier.firsts(queue, messages, this.protocol.now);
    const drafts = this.protocol.draft(
      queue,
      messages.filter((_, nth) => firsts[nth] === undefined),
    );
    return Array.isArray(drafts) ? undefined : drafts;
  }

  /** Commits the service's transaction while an enqueue waits for it. */
  private async commitBefore<T>(enqueued: Promise<T>): Promise<T> {
    // A duplicate need not wait.
    await Promise.race([enqueued.catch(() => undefined), this.world.blocked()]);
    await this.commit();
    count('enqueued behind a transaction');
    return enqueued;
  }

  private remember(queue: string, messages: readonly Sent[], idOf: (id: string) => string, at: number): void {
    const named = messages.map((one) => ({ ...one, id: idOf(one.id) }));
    this.earlier.rememberMessages(queue, named, at, DEDUPLICATION_SECONDS);
  }

  /**
   * Returns the deliveries that an enqueue stores, or its refusal. A broker may refuse by settings
   * that another broker has just changed. It may exceed the maximum depth by messages that have
   * just arrived without its doing.
   */
  private draft(broker: number, name: string, messages: Sent[], refusal: string | null): Delivery[] | Code {
    const drafts = this.protocol.draft(name, messages);
    const since = this.protocol.now - KNOWN_MS;
    if (refusal === null && drafts === 'queue-full') {
      const unheard = this.protocol.in(name).filter(({ id, origin, arrivedAt }) => {
        const enqueued = this.enqueuedOn.get(id);
        const isOwn = origin === name && enqueued?.broker === broker && enqueued.at === arrivedAt;
        return arrivedAt > since && !isOwn;
      });
      return this.protocol.draft(name, messages, { depth: this.protocol.depth(name) - unheard.length });
    }
    const mayBe = this.replaced
      .filter((one) => one.queue === name && one.broker !== broker && one.at > since)
      .map(({ settings: queue }) => this.protocol.draft(name, messages, { queue }));
    return mayBe.find((one) => refusal !== null && one === refusal) ?? drafts;
  }

  /**
   * Checks the messages that an enqueue leased to consumers who waited: those without a delay, the
   * most urgent first, as many as each consumer wanted. After a COMMIT without an answer it may
   * lease none.
   */
  private handOff(queue: string, consumers: readonly Consumer[], stored: readonly Delivery[], wasCut: boolean): void {
    const ready = stored
      .filter((one) => one.queue === queue && one.availableAt === this.protocol.now)
      .toSorted((one, other) => other.priority - one.priority);
    const isPaused = this.rules.paused().includes(queue);
    if (isPaused || (wasCut && consumers.every(({ leased }) => leased.length === 0))) {
      same(
        `handed off in ${queue}`,
        consumers.flatMap(({ leased }) => leased),
        [],
      );
      return;
    }
    for (const { leased, maxMessages, leaseSeconds } of consumers) {
      const expected = ready.splice(0, maxMessages);
      const leases = leased.map((one) => this.toLease(one));
      same(
        'handed off',
        leases.map(({ id }) => id),
        expected.map(({ id }) => id),
      );
      for (const [nth, lease] of leases.entries()) {
        const delivery = this.protocol.owed.get(keyOf(expected[nth]!))!;
        this.rules.handOff(lease, delivery, leaseSeconds);
        this.receipts.push({ queue, id: lease.id, token: lease.token });
        count('handed off');
      }
    }
  }

  /**
   * Settles the acks that the requests carry, then dequeues from one queue after the other. The cut
   * strikes at the first COMMIT.
   */
  private async dequeue(step: StepThat<'dequeue'>): Promise<void> {
    const carried = step.requests
      .map(({ queue, acks }) => this.picked(acks).map((receipt) => ({ ...receipt, queue })))
      .filter((group) => group.length > 0);
    await this.ack(carried, step);
    count('acks carried', carried.flat().length);
    const { broker, requests } = step;
    let left = carried.length === 0 ? step.cut : null;
    for (const together of this.feedEachOther(requests) ? requests.map((one) => [one]) : [requests]) {
      if (await this.dequeueFrom(together, { broker, cut: left })) left = null;
    }
  }

  /** Whether one of these queues is the dead-letter queue of another. */
  private feedEachOther(requests: readonly { queue: string }[]): boolean {
    const names = new Set<string | null>(requests.map(({ queue }) => queue));
    return requests.some(({ queue }) => names.has(this.protocol.queues.get(queue)!.deadLetterQueue));
  }

  /**
   * Dequeues like a broker, from all these queues with one claim. It skips paused queues, and
   * repeats the claim where it found nothing but may find more. Returns whether the cut struck.
   */
  private async dequeueFrom(
    requests: readonly { queue: string; demands: readonly Demand[] }[],
    { broker, cut }: { broker: number } & Cuttable,
  ): Promise<boolean> {
    const { batches, queues } = this.broker({ broker });
    const dequeues = await Promise.all(
      requests.map(async ({ queue: name, demands }) => {
        const queue = await queues.get(name);
        const leased: LeasedMessage[][] = demands.map(() => []);
        return { queue, demands, leased, mayBeMore: !queue.paused };
      }),
    );
    const { wasCut } = await this.cutting(cut, async () => {
      for (let tries = 0; tries < 5; tries += 1) {
        const left = dequeues.filter(({ leased, mayBeMore }) => mayBeMore && leased.flat().length === 0);
        if (left.length === 0) break;
        count('claim in several queues', left.length > 1 ? 1 : 0);
        const outcomes = await batches.claim(left);
        for (const [index, { leased, claimAgain }] of outcomes.entries())
          Object.assign(left[index]!, { leased, mayBeMore: await claimAgain });
      }
    });
    await this.world.database.idle();
    for (const { queue, demands, leased: found, mayBeMore } of dequeues) {
      const leased = found.map((all) => all.map((one) => this.toLease(one)));
      const dequeue = { broker, queue: queue.name, demands, leased, mayBeMore };
      await this.findAgain(this.rules.inTheWay(dequeue));
      this.rules.dequeue(dequeue);
      this.receipts.push(...leased.flat().map(({ id, token }) => ({ queue: queue.name, id, token })));
      count('handed out', leased.flat().length);
    }
    return wasCut;
  }

  /** Reads the deliveries that a dequeue may have changed without handing them out. */
  private async findAgain(deliveries: readonly Delivery[]): Promise<void> {
    if (deliveries.length === 0) return;
    const stored = await this.world.stored(deliveries.map(({ id }) => id));
    for (const one of deliveries) {
      const seen = stored.get(keyOf(one));
      const isExpired = one.expiresAt <= this.protocol.now;
      if (seen === undefined) count('expired on sight');
      else if (seen.queue !== one.queue) count(isExpired ? 'dead-lettered after its expiry' : 'dead-lettered on sight');
      this.rules.foundAt(one, seen);
    }
  }

  private async ack(groups: readonly Receipt[][], step: Pick<StepThat<'ack'>, 'broker' | 'cut'>): Promise<void> {
    if (groups.length === 0) return;
    const answer = await this.cutting(step.cut, () =>
      orUnknown(this.broker(step).batches.ack(groups.map((group) => this.toRequest(group)))),
    );
    await this.compare('ack', answer, groups, () =>
      this.outcomes('ack', groups, (receipt) => this.protocol.ack(receipt)),
    );
  }

  /**
   * Compares a verb's answer with the model's. If the answer of a COMMIT was lost, the store tries
   * again, and cannot tell what has become of a receipt that then fails. The whole batch has
   * happened, or nothing of it.
   */
  private async compare(
    what: string,
    { result, wasCut }: { result: readonly (readonly (string | null)[])[] | Unknown; wasCut: boolean },
    groups: readonly (readonly Receipt[])[],
    verb: () => (string | null)[][],
  ): Promise<void> {
    const ids = groups.flat().map(({ id }) => id);
    const owing = [...new Set(ids)].flatMap((id) => this.protocol.copies(id));
    const before = new Map(owing.map((one) => [keyOf(one), structuredClone(one)]));
    const expected = verb();
    if (result !== UNKNOWN || !wasCut) return same(what, result, expected);
    count(`${what} without an answer`);
    const isRefused = verb()
      .flat()
      .some((outcome) => outcome !== null);
    same(`${what} without an answer, though all leases are held`, isRefused, true);
    const stored = await this.world.stored(ids);
    const isAll = [...before.keys()].every((key) => isDeepStrictEqual(stored.get(key), this.inDatabase(key)));
    if (!isAll) for (const one of before.values()) this.protocol.put(one);
    return undefined;
  }

  /**
   * The outcomes of a batch, one receipt after the other. A receipt that held no lease before the
   * batch gets the answer of that moment, even if another receipt has settled its message. The
   * second use of one that settled its message is answered without a look for other copies of it.
   */
  private outcomes(
    what: string,
    groups: readonly (readonly Receipt[])[],
    verb: (receipt: Receipt, group: number) => Code | null,
  ): (Code | null)[][] {
    const before = groups.map((group) => group.map((receipt) => this.protocol.refusal(receipt)));
    return groups.map((group, index) =>
      group.map((receipt, position) => {
        const isPart = this.isPart(receipt);
        const outcome = verb(receipt, index);
        count(outcome ?? what);
        if (outcome === null && isPart) count(`${what} of a part`);
        const isRefused = outcome === 'lease-lost' || outcome === 'delivery-not-found';
        if (!isRefused) return outcome;
        return before[index]![position] ?? (what === 'ack' || what === 'reject' ? 'delivery-not-found' : outcome);
      }),
    );
  }

  /** Whether other messages of its pack share the receipt's lease. */
  private isPart({ id, token }: Receipt): boolean {
    return this.protocol.all().some((one) => one.token === token && one.id !== id && packOf(one.id) === packOf(id));
  }

  private async nack(step: StepThat<'nack'>): Promise<void> {
    const requests = step.requests.flatMap(({ receipts, delaySeconds }) =>
      this.byQueue(receipts).map((group) => ({ group, delaySeconds })),
    );
    if (requests.length === 0) return;
    const answer = await this.cutting(step.cut, () =>
      orUnknown(
        this.broker(step).batches.nack(
          requests.map(({ group, delaySeconds }) => ({ ...this.toRequest(group), delaySeconds })),
        ),
      ),
    );
    const groups = requests.map(({ group }) => group);
    await this.compare('nack', answer, groups, () =>
      this.outcomes('nack', groups, (receipt, index) => this.protocol.nack(receipt, requests[index]!.delaySeconds)),
    );
  }

  private async release(step: StepThat<'release'>): Promise<void> {
    const requests = step.requests.flatMap(({ receipts, delaySeconds }) =>
      this.byQueue(receipts).map((group) => ({ group, delaySeconds })),
    );
    if (requests.length === 0) return;
    const answer = await this.cutting(step.cut, () =>
      orUnknown(
        this.broker(step).batches.release(
          requests.map(({ group, delaySeconds }) => ({ ...this.toRequest(group), delaySeconds })),
        ),
      ),
    );
    const groups = requests.map(({ group }) => group);
    await this.compare('release', answer, groups, () =>
      this.outcomes('release', groups, (receipt, index) =>
        this.protocol.release(receipt, requests[index]!.delaySeconds),
      ),
    );
  }

  private async extend(step: StepThat<'extend'>): Promise<void> {
    const requests = step.requests.flatMap(({ receipts, leaseSeconds }) =>
      this.byQueue(receipts).map((group) => ({ group, leaseSeconds })),
    );
    if (requests.length === 0) return;
    const { result, wasCut } = await this.cutting(step.cut, () =>
      orUnknown(
        this.broker(step).batches.extend(
          requests.map(({ group, leaseSeconds }) => ({ ...this.toRequest(group), leaseSeconds })),
        ),
      ),
    );
    const groups = requests.map(({ group }) => group);
    const outcomes = result === UNKNOWN ? result : result.map((one) => one.outcomes);
    await this.compare('extend', { result: outcomes, wasCut }, groups, () =>
      this.outcomes('extend', groups, (receipt, index) => this.protocol.extend(receipt, requests[index]!.leaseSeconds)),
    );
    if (result === UNKNOWN) return;
    for (const [index, { leaseExpiresAt }] of result.entries()) {
      // Nobody learns the deadline of a request whose receipts all failed.
      if (!result[index]!.outcomes.includes(null)) continue;
      same('the new deadline', leaseExpiresAt, this.protocol.now + requests[index]!.leaseSeconds * 1000);
    }
  }

  private async reject(step: StepThat<'reject'>): Promise<void> {
    for (const group of this.byQueue(step.receipts)) {
      const answer = await this.cutting(step.cut, () =>
        orUnknown(
          this.broker(step)
            .batches.reject(this.toRequest(group))
            .then(
              (outcomes) => [outcomes],
              (error: unknown) => [group.map(() => refusalOf(error))],
            ),
        ),
      );
      await this.compare('nack with deadLetter', answer, [group], () =>
        this.outcomes('reject', [group], (receipt) => this.protocol.reject(receipt)),
      );
    }
  }

  /** Cancels a message. The store cannot tell what a COMMIT without an answer did. */
  private async cancel({ nth, cut, ...on }: StepThat<'cancel'>): Promise<void> {
    const id = [...this.enqueuedOn.keys()].at(-1 - nth);
    if (id === undefined) return;
    const { result } = await this.cutting(cut, () =>
      orUnknown(
        this.broker(on)
          .batches.cancel(Buffer.from(id, 'hex'), [...this.world.ids.values()])
          .then(() => null, refusalOf),
      ),
    );
    const stored = await this.world.stored([id]);
    const owing = this.protocol.copies(id).filter(({ expiresAt }) => expiresAt > this.protocol.now);
    const isGone = owing.every((one) => stored.get(keyOf(one)) === undefined);
    if (result === UNKNOWN && !isGone) return;
    const before = this.protocol.copies(id);
    const outcome = this.protocol.cancel(id);
    this.noteWithdrawn(before);
    count(outcome ?? 'cancelled');
    if (result !== UNKNOWN) same('cancel', result, outcome);
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

  private async redrive({ queue, most: limit, cut }: StepThat<'redrive'>): Promise<void> {
    // Without a limit a retry finds no further deliveries to move.
    const most = cut === null ? limit : Infinity;
    const before = this.protocol.in(queue);
    const { result, wasCut } = await this.cutting(cut, () =>
      this.world.unleased.redrive(this.id(queue), FIRST_ID, ROWS, most),
    );
    if (wasCut) await this.world.unleased.redrive(this.id(queue), FIRST_ID, ROWS);
    const stored = await this.world.stored(before.map(({ id }) => id));
    const expected = this.protocol.redrive(
      queue,
      (one) => most === Infinity || stored.get(keyOf(one))?.queue === one.origin,
    );
    const moved = [...expected.moved.values()].reduce((sum, some) => sum + some, 0);
    same('redriven', moved, Math.min(most, moved + expected.left));
    count('redriven', moved);
    if (wasCut) return;
    same('counts', { moved: this.world.named(result.moved), skipped: result.skipped, left: result.left }, expected);
  }

  private async purge({ queue, cut }: StepThat<'purge'>): Promise<void> {
    const before = this.protocol.in(queue);
    const expected = this.protocol.purge(queue);
    this.noteWithdrawn(before);
    count('purged', expected.purged);
    const work = async () => {
      const last = await this.world.unleased.lastId(this.id(queue));
      if (last === null) return { purged: 0, left: 0 };
      const { purged, left } = await this.world.unleased.purge(this.id(queue), FIRST_ID, last, ROWS);
      return { purged, left };
    };
    return this.sweep({ cut }, work, expected);
  }

  /** Notes those of these deliveries that are gone. */
  private noteWithdrawn(before: readonly Delivery[]): void {
    for (const one of before.filter((delivery) => !this.protocol.owed.has(keyOf(delivery)))) {
      const isExpired = one.expiresAt <= this.protocol.now && !this.protocol.isLeased(one);
      (isExpired ? this.mayBeWithdrawn : this.withdrawn).add(asBegun(one));
    }
  }

  /** A replay finds each settled message of the queue once, but none that was withdrawn. */
  private async replay(queue: string): Promise<void> {
    const { packs, next } = await this.world.settled.find(this.id(queue), FIRST_ID, LAST_ID, ROWS);
    same('packs behind the last one', next, null);
    const found = (await this.world.settled.read(packs)).map(({ id }) => id.toString('hex'));
    const owed = new Map(this.protocol.all().map((one) => [asBegun(one), one]));
    const isUnsure = (id: string): boolean => {
      const one = owed.get(asBegun({ id, origin: queue }));
      const isExpired = one !== undefined && one.expiresAt <= this.protocol.now && !this.protocol.isLeased(one);
      return isExpired || this.mayBeWithdrawn.has(asBegun({ id, origin: queue }));
    };
    const expected = [...(this.begun.get(queue) ?? [])].filter((id) => {
      const name = asBegun({ id, origin: queue });
      return !owed.has(name) && !this.withdrawn.has(name) && !isUnsure(id);
    });
    same('replayed', found.filter((id) => !isUnsure(id)).toSorted(), expected.toSorted());
    count('replayed', expected.length);
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
      made.map(({ id: _, availableAt, ...one }) => ({
        ...one,
        bodyEncoding: 'utf8' as const,
        availableAt: availableAt === undefined ? undefined : new Date(availableAt).toISOString(),
      })),
    );
    const ids = new Map(made.map(({ id }, index) => [id, typeof outcome === 'string' ? id : outcome[index]!]));
    const firsts = this.earlier.firsts(queue, made, this.protocol.now);
    const fresh = made
      .filter((_, index) => firsts[index] === undefined)
      .map((one) => ({ ...one, id: ids.get(one.id)! }));
    if (typeof outcome !== 'string') {
      same(
        'ids in a transaction',
        made.map(({ id }) => ids.get(id)),
        made.map(({ id }, index) => ids.get(firsts[index]?.id ?? id) ?? firsts[index]?.id),
      );
    }
    const drafts = this.protocol.draft(queue, fresh);
    same(
      'enqueue in a transaction',
      typeof outcome === 'string' ? outcome : null,
      typeof drafts === 'string' ? drafts : null,
    );
    const named = new Set(made.map(({ deduplicationId }) => deduplicationId));
    this.uncommitted =
      typeof drafts === 'string' ? undefined : { queue, drafts, fresh, ids: named, at: this.protocol.now };
  }

  private async commit(): Promise<void> {
    await this.world.endTransaction('commit');
    const { uncommitted } = this;
    this.uncommitted = undefined;
    if (uncommitted === undefined) return;
    this.store(uncommitted.drafts, { broker: null, isKnown: false });
    this.remember(uncommitted.queue, uncommitted.fresh, (id) => id, uncommitted.at);
  }

  /** @param isKnown the broker's dequeues cannot miss these messages */
  private store(drafts: readonly Delivery[], { broker, isKnown }: { broker: number | null; isKnown: boolean }): void {
    this.protocol.store(drafts, isKnown ? broker : null);
    for (const { id, queue, arrivedAt } of drafts) {
      this.enqueuedOn.set(id, { broker, at: arrivedAt });
      this.begun.set(queue, (this.begun.get(queue) ?? new Set<string>()).add(id));
    }
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

  private async compareSome(deliveries: readonly Delivery[]): Promise<void> {
    const stored = await this.world.stored(deliveries.map(({ id }) => id));
    for (const key of deliveries.map(keyOf)) same(`delivery ${key}`, stored.get(key), this.inDatabase(key));
  }

  private compareStored(stored: ReadonlyMap<string, StoredDelivery>): void {
    const { owed } = this.protocol;
    for (const id of new Set([...stored.keys(), ...owed.keys()])) {
      same(`delivery ${id}`, stored.get(id), this.inDatabase(id));
    }
  }

  /** A delivery as the database must show it. */
  private inDatabase(id: string): StoredDelivery | undefined {
    const one = this.protocol.owed.get(id);
    if (one === undefined) return undefined;
    const { queue, priority, receiveCount, availableAt, expiresAt, producerExpiresAt, token } = one;
    return { queue, priority, receiveCount, availableAt, expiresAt, producerExpiresAt, token };
  }

  private async cutting<T>(cut: Cuttable['cut'], work: () => Promise<T>): Promise<{ result: T; wasCut: boolean }> {
    const outcome = await this.world.cutting(cut, work);
    count('cut', outcome.wasCut ? 1 : 0);
    return outcome;
  }

  private make(message: NewMessage): Sent {
    const { priority, delaySeconds, availableInMs, expiresInSeconds, deduplicationId, groupId } = message;
    this.made += 1;
    return {
      // The store makes the ids.
      id: `${this.made}`,
      body: `message ${this.made}`,
      priority,
      delaySeconds,
      availableAt: availableInMs === undefined ? undefined : this.protocol.now + availableInMs,
      expiresInSeconds,
      deduplicationId,
      groupId,
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
        // A forged receipt has hints too, which fit no delivery or another one.
        ...(this.hints.get(`${id} ${token}`) ?? { part: 0, members: 1 }),
      })),
    };
  }

  private toLease({ messageId, leaseToken, part, members, body, ...lease }: LeasedMessage): Lease {
    const { priority, receiveCount, expiresAt, leaseExpiresAt } = lease;
    const [id, token] = [messageId.toString('hex'), leaseToken.toString('hex')];
    this.hints.set(`${id} ${token}`, { part, members });
    const copy = Math.floor(part / PACK_MESSAGES);
    return { id, copy, token, body: body.toString(), priority, receiveCount, expiresAt, leaseExpiresAt };
  }

  private broker({ broker }: { broker: number }): Broker {
    return this.world.brokers[broker]!;
  }

  private id(queue: string): number {
    return this.world.ids.get(queue)!;
  }
}

/** A stretch that is longer than any queue of a history. */
const ROWS = 500;

/** A consumer that waits while messages are enqueued. */
class Consumer implements Reservation {
  readonly maxMessages: number;
  readonly leaseSeconds: number;
  leased: LeasedMessage[] = [];
  private answers = 0;

  constructor({ maxMessages, leaseSeconds }: Demand) {
    this.maxMessages = maxMessages;
    this.leaseSeconds = leaseSeconds;
  }

  handOff(leased: LeasedMessage[]): void {
    this.answers += 1;
    this.leased = leased;
    same('a hand-off of no message', leased.length === 0, false);
  }

  cancel(): void {
    this.answers += 1;
  }

  /** A consumer without an answer waits for ever. One with two may lose messages. */
  check(): void {
    same('answers to a reserved consumer', this.answers, 1);
  }
}

/** Whether a change of settings would leave dead letters nowhere to go, or send them round. */
function leadsNowhere(queues: ReadonlyMap<string, Settings>, { queue, settings }: StepThat<'configure'>): boolean {
  const before = queues.get(queue)!;
  // A change that changes nothing is not looked at.
  if (Object.entries(settings).every(([name, value]) => before[name as keyof Settings] === value)) return false;
  const { maxReceives, deadLetterQueue, deadLetterExpired } = { ...before, ...settings };
  if (deadLetterExpired === true && deadLetterQueue === null) return true;
  const concerns = 'maxReceives' in settings || 'deadLetterQueue' in settings;
  if (concerns && maxReceives !== null && deadLetterQueue === null) return true;
  if (deadLetterQueue === before.deadLetterQueue) return false;
  const path = new Set<string>();
  for (let next = deadLetterQueue; next !== null && !path.has(next); next = queues.get(next)!.deadLetterQueue)
    path.add(next);
  return path.has(queue);
}

/** Returns a refusal's code. Rethrows every other error. */
function refusalOf(error: unknown): string {
  if (error instanceof RowmqError && error.code !== 'database-unavailable') return error.code;
  throw error;
}

/** The answer of a request about which the store knows only that it may have happened. */
const UNKNOWN = Symbol('the store does not know');
type Unknown = typeof UNKNOWN;

async function orUnknown<T>(work: Promise<T>): Promise<T | Unknown> {
  return work.catch((error: unknown) => {
    if (error instanceof RowmqError && error.code === 'database-unavailable') return UNKNOWN;
    throw error;
  });
}
