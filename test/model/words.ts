import type { Settings } from '@rowmq/client/testing';
import type { Demand, History, JobFilter, NewJob, NewMessage, PickedReceipt, Step } from './steps.js';

/** Describes a history in words: one line for each queue's settings, and one for each step. */
export function inWords({ queues, steps }: History): string[] {
  const settings = Object.entries(queues).flatMap(([name, of]) => {
    const set = Object.entries(of).filter(([key, value]) => value !== DEFAULTS[key as keyof Settings]);
    return set.length === 0 ? [] : [`   queue ${name}: ${set.map(([key, value]) => `${key} ${value}`).join(', ')}`];
  });
  return [...settings, ...steps.map((step, index) => `${String(index + 1).padStart(2)} ${stepInWords(step)}`)];
}

const DEFAULTS: Settings = {
  delaySeconds: 0,
  messageTtlSeconds: 345_600,
  maxReceives: null,
  deadLetterQueue: null,
  deadLetterExpired: false,
  maxDepth: null,
};

const CUTS = {
  before: ', its connection cut before its COMMIT',
  late: ', its connection cut while its COMMIT is in transit',
  after: ', its connection cut before the answer to its COMMIT',
};

function stepInWords(step: Step): string {
  const who = 'broker' in step ? `broker ${step.broker}` : 'reaper';
  const cut = 'cut' in step && step.cut !== null ? CUTS[step.cut] : '';
  switch (step.does) {
    case 'enqueue':
      return `${who}: enqueue ${and(step.requests.map((one) => `${messages(one.messages)} in ${one.queue}${waiting(one.waiting)}`))}${cut}`;
    case 'publish':
      return `${who}: publish ${and(step.messages.map(({ kind, ...one }) => `${messages([one])} of kind ${kind}`))}${Object.entries(
        step.waiting,
      )
        .map(([queue, all]) => (all.length > 0 ? ` in ${queue}${waiting(all)}` : ''))
        .join('')}${cut}`;
    case 'dequeue':
      return `${who}: dequeue ${and(step.requests.map((one) => `from ${one.queue} ${demands(one.demands)}${carrying(one.acks)}`))}${cut}`;
    case 'ack':
      return `${who}: ack ${and(step.requests.map((one) => receipts(one.receipts)))}${cut}`;
    case 'nack':
      return `${who}: nack ${and(step.requests.map((one) => `${receipts(one.receipts)} with a delay of ${one.delaySeconds} s`))}${cut}`;
    case 'extend':
      return `${who}: extend ${and(step.requests.map((one) => `${receipts(one.receipts)} to ${one.leaseSeconds} s`))}${cut}`;
    case 'reject':
      return `${who}: nack with deadLetter ${receipts(step.receipts)}${cut}`;
    case 'release':
      return `${who}: release ${and(step.requests.map((one) => `${receipts(one.receipts)} with a delay of ${one.delaySeconds} s`))}${cut}`;
    case 'cancel':
      return `${who}: cancel message ${step.nth}${cut}`;
    case 'poll':
      return `${who}: poll for queues that have something ready`;
    case 'expire':
    case 'deadLetter':
      return `${who}: ${step.does === 'expire' ? 'expire' : 'dead-letter'} in every queue${cut}`;
    case 'redrive':
      return `${who}: redrive ${step.most === Infinity ? 'all' : `up to ${step.most}`} of ${step.queue}${cut}`;
    case 'purge':
      return `${who}: purge ${step.queue}${cut}`;
    case 'replay':
      return `replay of ${step.queue}`;
    case 'startJob':
      return `${who}: begin a job that ${jobKind(step)} ${step.maxMessages === null ? 'all' : `up to ${step.maxMessages}`} of ${step.queue}${filter(step.filter)}`;
    case 'runJob':
      return `${who}: ${step.batches} batches of job ${step.nth}, each of ${step.rows} rows and at most ${step.most} messages${cut}`;
    case 'leaveJob':
      return `${who}: ${step.how === 'stops' ? 'hand job' : 'fail in a batch of job'} ${step.nth}${step.how === 'stops' ? ' on' : ''}`;
    case 'cancelJob':
      return `${who}: cancel job ${step.nth}`;
    case 'configure':
      return `${who}: set ${Object.entries(step.settings)
        .map(([key, value]) => `${key} ${value}`)
        .join(', ')} of ${step.queue}`;
    case 'pause':
    case 'resume':
      return `${who}: ${step.does} ${step.queue}`;
    case 'restart':
      return `${who}: crashes and starts again`;
    case 'begin':
      return `service: begin a transaction and enqueue ${messages(step.messages)} in ${step.queue}`;
    case 'commit':
    case 'rollBack':
      return `service: ${step.does === 'commit' ? 'commit' : 'roll back'}`;
    case 'wait':
      return `clock: ${step.ms} ms pass`;
    default:
      return `clock: until ${step.ms} ms after deadline ${step.nth}`;
  }
}

function jobKind({ kind, target }: Pick<NewJob, 'kind' | 'target'>): string {
  if (kind === 'redrive') return target === null ? 'redrives' : `moves to ${target}`;
  return kind === 'drop' ? 'drops' : 'purges';
}

function filter(conditions: JobFilter): string {
  const all = Object.entries(conditions).map(([name, value]) => `${name} ${value}`);
  return all.length === 0 ? '' : ` with ${and(all)}`;
}

function messages(all: readonly NewMessage[]): string {
  return and(
    all.map(({ priority, delaySeconds, availableInMs, expiresInSeconds, deduplicationId, groupId }) => {
      const delay = delaySeconds === undefined ? '' : ` delayed ${delaySeconds} s`;
      const instant = availableInMs === undefined ? '' : ` available at an instant ${availableInMs} ms from now`;
      const expiry = expiresInSeconds === undefined ? '' : ` expiring in ${expiresInSeconds} s`;
      const id = deduplicationId === undefined ? '' : ` with the id ${deduplicationId}`;
      const group = groupId === undefined ? '' : ` of the group ${groupId}`;
      return `a message of priority ${priority}${delay}${instant}${expiry}${id}${group}`;
    }),
  );
}

function demands(all: readonly Demand[]): string {
  return and(all.map(({ maxMessages, leaseSeconds }) => `${maxMessages} for ${leaseSeconds} s`));
}

function waiting(all: readonly Demand[]): string {
  return all.length === 0 ? '' : `, where consumers wait for ${demands(all)}`;
}

function carrying(acks: readonly PickedReceipt[]): string {
  return acks.length === 0 ? '' : ` with acks of ${receipts(acks)}`;
}

function receipts(all: readonly PickedReceipt[]): string {
  return and(all.map(({ nth, as }) => `receipt ${nth}${as === 'given' ? '' : ` ${as}`}`));
}

function and(texts: readonly string[]): string {
  return texts.join(' and ');
}
