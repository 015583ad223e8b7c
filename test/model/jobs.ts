import { matchesContent, matchesDelivery, type MessageFilter } from '@rowmq/contract';
import { FIRST_ID, type JobBatch, type JobEntity, JobLost } from '@rowmq/store';
import { type Delivery, JobProtocol, type JobTerms, keyOf, type LeaseProtocol } from '@rowmq/client/testing';
import type { MemoryMoves } from '../../libs/client/src/testing/memory-moves.js';
import { count, same } from './compare.js';
import { packOf } from './dequeue-rules.js';
import type { Cuttable, JobFilter, Step } from './steps.js';
import type { Broker, World } from './world.js';

type StepThat<Does extends Step['does']> = Step & { does: Does };

/** A job goes to another process if its worker has committed no batch for so long. */
const LEASE_MS = 15_000;
/** After a failure it goes to another process, but not at once. */
const BACK_OFF_MS = 1000;
/** It fails with so many failures in a row. */
const MOST_FAILURES = 20;
/** It comes back for messages that it could not handle, so many times. */
const MOST_PASSES = 10;

/** The parts of a history that its jobs need. */
interface History {
  world: World;
  protocol: LeaseProtocol;
  moves: MemoryMoves;
  cutting<T>(cut: Cuttable['cut'], work: () => Promise<T>): Promise<{ result: T; wasCut: boolean }>;
  /** Some of these deliveries are gone, and a replay must leave them out. */
  settled(before: readonly Delivery[]): void;
  /** The database must show these deliveries as the model does. */
  expectStored(deliveries: readonly Delivery[]): Promise<void>;
}

/** A job, and what the model knows of it. */
interface Job {
  /** As the store has answered it last, which the model has compared. */
  entity: JobEntity;
  terms: JobTerms;
  worker: string | null;
  /** From then on another process may take it over. */
  heldUntil: number;
}

/**
 * Runs the jobs of a history on the store, batch by batch, and compares each batch with the
 * protocol. The store chooses how far a batch goes. Up to there it handles all messages that the
 * job wants, and none that came to the queue after the job began.
 */
export class Jobs {
  /** The headers of published messages. */
  readonly kinds = new Map<string, string>();
  private readonly jobs: Job[] = [];
  private readonly rules: JobProtocol;
  /** A broker that starts again is another worker. */
  private readonly starts = new Map<number, number>();

  constructor(private readonly history: History) {
    this.rules = new JobProtocol(history.protocol);
  }

  restart(broker: number): void {
    this.starts.set(broker, (this.starts.get(broker) ?? 0) + 1);
  }

  async start({ broker, kind, queue, target, filter: wish, maxMessages }: StepThat<'startJob'>): Promise<void> {
    const { world, protocol } = this.history;
    const filter = kind === 'purge' ? {} : this.toFilter(wish);
    const to = kind === 'redrive' && target !== null && target !== queue ? target : null;
    const named = (name: string) => ({ id: world.ids.get(name)!, name });
    const entity = await this.broker(broker).jobs.create({
      kind,
      queue: named(queue),
      target: to === null ? null : named(to),
      filter,
      patterns: [],
      messagesPerSecond: null,
      maxMessages: kind === 'purge' ? null : maxMessages,
    });
    const owed = protocol.in(queue);
    const { total, lastPackId, createdAt, state } = entity;
    const last = owed.map(({ id }) => packOf(id)).reduce((one, other) => (one > other ? one : other), hex(FIRST_ID));
    same(
      'a new job',
      { total, last: hex(lastPackId), createdAt, state },
      { total: owed.length, last, createdAt: protocol.now, state: 'running' },
    );
    const selects = (one: Delivery): boolean => this.arrivedAt(one) <= createdAt && this.isSelected(filter, one);
    this.jobs.push({ entity, terms: { kind, queue, target: to, selects }, worker: null, heldUntil: 0 });
  }

  /** A broker carries out some batches, if it is the job's worker or may become it. */
  async run(step: StepThat<'runJob'>): Promise<void> {
    const job = this.nth(step.nth);
    if (job === undefined) return;
    const { now } = this.history.protocol;
    const worker = this.worker(step.broker);
    const { jobs } = this.broker(step.broker);
    const { id } = job.entity;
    if (job.worker !== worker) {
      const isFree = job.entity.state === 'running' && job.heldUntil <= now;
      const isIdle = (await jobs.idle(this.jobs.length)).some((one) => one.equals(id));
      same('the job has no worker', isIdle, isFree);
      same('acquired', await jobs.acquire(id, worker), isFree);
      if (!isFree) {
        await this.expectLost(job, step);
        return;
      }
      if (job.worker !== null) count('job taken over');
      Object.assign(job, { worker, heldUntil: now + LEASE_MS });
    }
    for (let batches = 0; batches < step.batches && job.worker !== null; batches += 1)
      await this.batch(job, worker, { ...step, cut: batches === 0 ? step.cut : null });
  }

  /** A broker that stops hands its job on, and so does one whose batch failed. */
  async leave({ broker, nth, how }: StepThat<'leaveJob'>): Promise<void> {
    const job = this.nth(nth);
    if (job === undefined) return;
    const worker = this.worker(broker);
    const { jobs } = this.broker(broker);
    const { now } = this.history.protocol;
    const { id, failures } = job.entity;
    const isWorker = job.worker === worker && job.entity.state === 'running';
    if (how === 'stops') await jobs.release(id, worker);
    else await jobs.failed(id, worker, new Error('A test fails.'));
    const after = await jobs.get(id);
    if (isWorker) {
      Object.assign(job, { worker: null, heldUntil: how === 'stops' ? 0 : now + BACK_OFF_MS });
      count(`job whose worker ${how}`);
    }
    const failed = failures + (isWorker && how === 'fails' ? 1 : 0);
    same(
      `a job whose worker ${how}`,
      { worker: after.worker, state: after.state, failures: after.failures },
      { worker: job.worker, state: failed < MOST_FAILURES ? job.entity.state : 'failed', failures: failed },
    );
    job.entity = after;
  }

  async cancel({ broker, nth }: StepThat<'cancelJob'>): Promise<void> {
    const job = this.nth(nth);
    if (job === undefined) return;
    const isRunning = job.entity.state === 'running';
    const after = await this.broker(broker).jobs.cancel(job.entity.id);
    same('a cancelled job', after.state, isRunning ? 'cancelled' : job.entity.state);
    if (isRunning) count('job cancelled');
    job.entity = after;
    job.worker = null;
  }

  /** A broker that is not the job's worker changes nothing. */
  private async expectLost({ entity, terms }: Job, { broker, rows, most }: StepThat<'runJob'>): Promise<void> {
    const outcome = await this.broker(broker)
      .jobs.runBatch(entity.id, this.worker(broker), { rows, most })
      .then(
        () => 'done',
        (error: unknown) => (error instanceof JobLost ? 'lost' : Promise.reject(error as Error)),
      );
    same('a batch of a job that has ended or is another’s', outcome, 'lost');
    await this.history.expectStored(this.history.protocol.in(terms.queue));
    count(entity.state === 'running' ? 'job of another worker' : 'job that has ended');
  }

  private async batch(job: Job, worker: string, { broker, rows, most, cut }: StepThat<'runJob'>): Promise<void> {
    const { world, protocol } = this.history;
    const { terms, entity: before } = job;
    const wish = before.maxMessages === null ? Infinity : before.maxMessages - before.done;
    const room = terms.kind === 'purge' ? Infinity : Math.min(most, wish);
    const inView = this.rules.inView(terms).filter((one) => isBetween(before.afterPackId, one, before.lastPackId));
    const { result } = await this.history.cutting(cut, () =>
      this.broker(broker).jobs.runBatch(before.id, worker, { rows, most }),
    );
    const stored = await world.stored(inView.map(({ id }) => id));
    const done = inView.filter((one) => stored.get(keyOf(one))?.queue !== one.queue);
    const seen = { inView, done, room };
    this.compareChoice(terms, seen, result, before);
    compareCounts(before, result, done.length, this.passed(terms, seen, result, before));
    same('messages that a batch moved', world.named(result.moved), movedBy(terms, done));
    for (const one of done) this.rules.handle(terms, one);
    if (terms.kind !== 'redrive') this.history.settled(done);
    await this.history.expectStored(inView);
    count(terms.target === null ? `job: ${terms.kind}` : 'job: move', done.length);
    const isOver = result.job.state !== 'running';
    if (isOver) count('job done');
    job.entity = await this.broker(broker).jobs.get(before.id);
    job.worker = isOver ? null : worker;
    job.heldUntil = protocol.now + LEASE_MS;
    same('the job in the database', progressOf(job.entity), progressOf(result.job));
    same('its worker, and its failures in a row', [job.entity.worker, job.entity.failures], [job.worker, 0]);
  }

  /** A batch handles the first messages that its job wants, and only them. */
  private compareChoice(terms: JobTerms, { inView, done, room }: Seen, { job }: JobBatch, before: JobEntity): void {
    const able = inView.filter((one) => terms.selects(one) && this.rules.mayHandle(terms, one));
    const unwanted = done.filter((one) => !able.includes(one));
    same('handled, though the job does not want them', unwanted.map(keyOf), []);
    same(`at most ${room} handled`, done.length <= room, true);
    const end = endOf(job, before);
    const last = done.map(({ id }) => packOf(id)).reduce((one, other) => (one > other ? one : other), '');
    const overlooked = able
      .filter((one) => !done.includes(one))
      .filter((one) => packOf(one.id) < last || (end !== null && isBetween(FIRST_ID, one, end)));
    same('overlooked by a batch', overlooked.map(keyOf), []);
    const isFurther = end === null || isEnd(job, before) || end.compare(before.afterPackId) > 0;
    same('a batch gets on', isFurther || done.length > 0, true);
  }

  /** The messages of the packs that a batch has passed. Null: nobody knows how far it came. */
  private passed(terms: JobTerms, { inView, done }: Seen, { job }: JobBatch, before: JobEntity): Passed | null {
    const end = endOf(job, before);
    if (end === null) return null;
    const passed = inView.filter((one) => isBetween(FIRST_ID, one, end));
    const unable = passed.filter((one) => terms.selects(one) && !this.rules.mayHandle(terms, one)).length;
    const beyond = done.filter((one) => !passed.includes(one)).length;
    // A purge comes back for leases that are about to end. No later batch moves the others.
    const [skipped, left] = terms.kind === 'purge' ? [0, unable] : [unable, 0];
    return { examined: passed.length + beyond, skipped, left };
  }

  private toFilter({ movedWithinMs, kind, cause, ...others }: JobFilter): MessageFilter {
    const movedFrom = movedWithinMs === undefined ? undefined : this.history.protocol.now - movedWithinMs;
    return {
      ...others,
      ...(cause !== undefined && { reason: cause }),
      ...(kind !== undefined && { header: `kind=${kind}` }),
      ...(movedFrom !== undefined && { movedFrom: new Date(movedFrom).toISOString() }),
    };
  }

  private isSelected(filter: MessageFilter, one: Delivery): boolean {
    const kind = this.kinds.get(one.id);
    const moves = this.history.moves.of(one);
    return (
      matchesDelivery(filter, { source: one.origin, nackReason: null, moves, enqueuedAt: 0 }) &&
      matchesContent(filter, { headers: kind === undefined ? {} : { kind }, body: Buffer.from(one.body) })
    );
  }

  /** A message that has never moved was here before the job, or its pack lies behind the last. */
  private arrivedAt(one: Delivery): number {
    return this.history.moves.of(one).at(-1)?.at ?? 0;
  }

  private nth(nth: number): Job | undefined {
    return this.jobs.at(-1 - nth);
  }

  private worker(broker: number): string {
    return `broker ${broker}, start ${this.starts.get(broker) ?? 0}`;
  }

  private broker(broker: number): Broker {
    return this.history.world.brokers[broker]!;
  }
}

/** The messages that a batch may have handled, and those that it has. */
interface Seen {
  inView: readonly Delivery[];
  done: readonly Delivery[];
  room: number;
}

interface Passed {
  examined: number;
  /** Wanted messages that have nowhere to go. */
  skipped: number;
  /** Wanted messages that another pass may handle. */
  left: number;
}

/**
 * The last pack that a batch has passed. Null: the job has handled enough messages, and does not
 * tell.
 */
function endOf(after: JobEntity, before: JobEntity): Buffer | null {
  if (after.maxMessages !== null && after.done >= after.maxMessages) return null;
  return isEnd(after, before) ? before.lastPackId : after.afterPackId;
}

/** Whether a batch was the last one of a pass. */
function isEnd(after: JobEntity, before: JobEntity): boolean {
  return after.state === 'done' || after.pass > before.pass;
}

/** The progress of a job, which each batch counts. */
function progressOf({ examined, done, skipped, afterPackId, pass, leftOver, step, state }: JobEntity) {
  return { examined, done, skipped, after: hex(afterPackId), pass, leftOver, step, state };
}

/** Compares the counts of a job after a batch. */
function compareCounts(
  before: JobEntity,
  { job: after, count: counted }: JobBatch,
  done: number,
  passed: Passed | null,
): void {
  const total = before.done + done;
  same('messages of a batch', { counted, total: after.done }, { counted: done, total });
  if (passed === null) {
    same('the state of a job that has handled enough', after.state, 'done');
    return;
  }
  const left = before.leftOver + passed.left;
  const isLast = isEnd(after, before);
  const isOver = isLast && (left === 0 || before.pass >= MOST_PASSES);
  const isFirst = before.pass === 1;
  const { examined, skipped, pass, leftOver, state } = after;
  same(
    'the counts of a job',
    { examined, skipped, pass, leftOver, state },
    {
      examined: before.examined + (isFirst ? passed.examined : 0),
      skipped: before.skipped + (isFirst ? passed.skipped : 0) + (isOver ? left : 0),
      pass: before.pass + (isLast && !isOver ? 1 : 0),
      leftOver: isLast ? 0 : left,
      state: isOver ? 'done' : 'running',
    },
  );
}

/** By queue, the number of messages that went there. */
function movedBy({ kind, target }: JobTerms, done: readonly Delivery[]): Map<string, number> {
  const moved = new Map<string, number>();
  if (kind !== 'redrive') return moved;
  for (const { origin } of done) moved.set(target ?? origin, (moved.get(target ?? origin) ?? 0) + 1);
  return moved;
}

/** Whether a delivery lies in the packs after the first and up to the last. */
function isBetween(first: Buffer, { id }: Delivery, last: Buffer): boolean {
  const pack = packOf(id);
  return pack > hex(first) && pack <= hex(last);
}

function hex(id: Buffer): string {
  return id.toString('hex');
}
