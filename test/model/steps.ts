import type { Filter, JobKind, MoveCause } from '@rowmq/contract';
import type { Cut as AnyCut } from '../support/cutting-proxy.js';
import type { Settings } from '@rowmq/client/testing';

/*
 * A history: queues with settings, and steps that happen to them. Steps refer to receipts, jobs and
 * deadlines by number, so a history stays valid when fast-check removes any of them.
 */

export const QUEUES = ['a', 'b', 'c'] as const;
export const BROKERS = [0, 1] as const;
/** The topic of all histories, and its subscriptions in the order of the queues' ids. */
export const TOPIC = {
  name: 't',
  subscriptions: [
    { queue: 'a', filter: { kind: ['x', 'y'] } },
    { queue: 'b', filter: null },
    { queue: 'c', filter: { kind: ['y'] } },
  ],
} satisfies { name: string; subscriptions: { queue: string; filter: Filter | null }[] };
export const KINDS = ['x', 'y', 'z'] as const;

interface On {
  broker: number;
}

/** A held answer would cost the statement's whole deadline. */
export type Cut = Exclude<AnyCut, 'held'>;

/** The connection breaks at the step's first COMMIT. */
export interface Cuttable {
  cut: Cut | null;
}

export interface NewMessage {
  priority: number;
  delaySeconds?: number | undefined;
  /** In place of a delay: an instant, this many ms from the enqueue. */
  availableInMs?: number | undefined;
  expiresInSeconds?: number | undefined;
  deduplicationId?: string | undefined;
  groupId?: string | undefined;
}

/** A receipt, counted back from the latest. */
export interface PickedReceipt {
  nth: number;
  /** Sends it unchanged or forged. */
  as: 'given' | 'sent to another queue' | 'with no token' | 'with another token';
}

export interface Picks {
  receipts: PickedReceipt[];
}

/** The messages that a job wants: those that meet all of these. */
export interface JobFilter {
  source?: string;
  /** They have once moved for this cause. */
  cause?: MoveCause;
  /** They were published with this kind. */
  kind?: string;
  body?: string;
  /** They came to the queue within so many ms before the job began. */
  movedWithinMs?: number;
}

/** A job. A purge has neither a target nor a filter nor a limit. */
export interface NewJob {
  kind: JobKind;
  queue: string;
  /** The queue to which a redrive moves messages. Null: each goes back. */
  target: string | null;
  filter: JobFilter;
  maxMessages: number | null;
}

/** A job, counted back from the latest. */
interface OfJob {
  nth: number;
}

/** The size of a job's batch: it passes so many rows, and handles so many messages at most. */
export interface BatchSize {
  rows: number;
  most: number;
}

/** Messages for the topic, and by queue the consumers that wait. */
export interface Publish {
  messages: (NewMessage & { kind: (typeof KINDS)[number] })[];
  waiting: Record<string, Demand[]>;
}

export type Step =
  | ({ does: 'publish' } & Publish & On & Cuttable)
  | ({ does: 'enqueue'; requests: Enqueue[] } & On & Cuttable)
  | ({ does: 'dequeue'; requests: { queue: string; demands: Demand[]; acks: PickedReceipt[] }[] } & On & Cuttable)
  | ({ does: 'ack'; requests: Picks[] } & On & Cuttable)
  | ({ does: 'nack'; requests: (Picks & { delaySeconds: number })[] } & On & Cuttable)
  | ({ does: 'extend'; requests: (Picks & { leaseSeconds: number })[] } & On & Cuttable)
  | ({ does: 'reject' } & Picks & On & Cuttable)
  | ({ does: 'release'; requests: (Picks & { delaySeconds: number })[] } & On & Cuttable)
  | ({ does: 'poll' } & On)
  | ({ does: 'expire' | 'deadLetter' } & Cuttable)
  /** A message, counted back from the latest. */
  | ({ does: 'cancel'; nth: number } & On & Cuttable)
  | ({ does: 'redrive'; queue: string; most: number } & Cuttable)
  | ({ does: 'purge'; queue: string } & Cuttable)
  /** Looks for the messages that a replay would bring back. */
  | { does: 'replay'; queue: string }
  | ({ does: 'startJob' } & NewJob & On)
  /** Unless another broker is its worker. The cut strikes in the first batch. */
  | ({ does: 'runJob'; batches: number } & BatchSize & OfJob & On & Cuttable)
  | ({ does: 'leaveJob'; how: 'stops' | 'fails' } & OfJob & On)
  | ({ does: 'cancelJob' } & OfJob & On)
  | ({ does: 'configure'; queue: string; settings: Partial<Settings> } & On)
  | ({ does: 'pause' | 'resume'; queue: string } & On)
  | ({ does: 'restart' } & On)
  | { does: 'begin'; queue: string; messages: NewMessage[] }
  | { does: 'commit' | 'rollBack' }
  | { does: 'wait'; ms: number }
  | { does: 'waitFor'; nth: number; ms: number };

/** A request, and the consumers that wait for messages of its queue. */
export interface Enqueue {
  queue: string;
  messages: NewMessage[];
  waiting: Demand[];
}

export interface Demand {
  maxMessages: number;
  leaseSeconds: number;
}

export interface History {
  queues: Record<string, Settings>;
  steps: Step[];
}
