import type { JobKind } from '@rowmq/contract';
import type { Delivery, LeaseProtocol } from './lease-protocol.js';

/** The work of a job on one queue. */
export interface JobTerms {
  kind: JobKind;
  queue: string;
  /** The queue to which a redrive moves messages. Null: each goes where it came from. */
  target: string | null;
  /** Whether the job's filter selects a delivery. */
  selects(delivery: Delivery): boolean;
}

/**
 * The jobs of operators: redrive, drop and purge of what a filter selects. A job takes a while, and
 * each of its batches is at an instant. `InMemoryBroker` carries a job out at once. `test/model`
 * learns from the store which deliveries a batch has handled, and compares the rest.
 */
export class JobProtocol {
  constructor(private readonly protocol: LeaseProtocol) {}

  /** The deliveries at which a job looks. Only a purge concerns those that a consumer holds. */
  inView({ kind, queue }: Pick<JobTerms, 'kind' | 'queue'>): Delivery[] {
    const { now } = this.protocol;
    return this.protocol
      .in(queue)
      .filter((one) => kind === 'purge' || (!this.protocol.isLeased(one) && (kind === 'drop' || one.expiresAt > now)));
  }

  /** Whether a job may handle a delivery in its view now. A redrive needs a queue for it. */
  mayHandle({ kind, queue, target }: JobTerms, one: Delivery): boolean {
    if (kind === 'purge') return this.protocol.mayPurge(one);
    const to = target ?? one.origin;
    return kind === 'drop' || (to !== queue && this.protocol.queues.has(to));
  }

  handle({ kind, target }: JobTerms, one: Delivery): void {
    if (kind === 'redrive') this.protocol.move(one, target ?? one.origin, 'redriven');
    else this.protocol.drop(one);
  }

  /**
   * Carries out a whole job. It stops after the last of `most` messages if there are more.
   *
   * @returns the numbers of messages that it examined and handled, and of those that it wanted and
   * had to leave
   */
  run(terms: JobTerms, most = Infinity): { examined: number; done: number; skipped: number } {
    const all = this.inView(terms);
    const able = all.filter((one) => terms.selects(one) && this.mayHandle(terms, one));
    const done = able.slice(0, most);
    const examined = done.length < able.length ? all.slice(0, all.indexOf(done.at(-1) as Delivery) + 1) : all;
    const selected = examined.filter((one) => terms.selects(one)).length;
    for (const one of done) this.handle(terms, one);
    return { examined: examined.length, done: done.length, skipped: selected - done.length };
  }
}
