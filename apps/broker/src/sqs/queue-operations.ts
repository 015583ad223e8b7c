import { Inject, Injectable } from '@nestjs/common';
import { RowmqError } from '@rowmq/contract';
import { type Queue, QueueRepository } from '@rowmq/store';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';
import { JobsService } from '../jobs/jobs.service.js';
import { QueuesService } from '../queues/queues.service.js';
import { permission, type PolicyDocument, readPolicy, type Statement } from './permission.js';
import { arnOf, checkName, pageOf, urlOf } from './queue-address.js';
import {
  allowedSourcesOf,
  attributesOf,
  changeOf,
  differing,
  needsFigures,
  refuseReadOnly,
  wantedNames,
} from './queue-attributes.js';
import { readRedrivePolicy } from './redrive-policy.js';
import { type Operations, queueOf, type SqsContext } from './sqs-context.js';
import { invalidParameter, invalidValue, missing, required, SqsError } from './sqs-error.js';
import type { Input } from './sqs-input.js';
import { isTooLarge, MOST_TEXT_BYTES, settingsOf, writeSettings } from './sqs-settings.js';

/** A purge answers after this long, and goes on in the background. */
const PURGE_SECONDS = 20;
const MOST_TAGS = 50;

/** Queues, their attributes, tags and permissions. */
@Injectable()
export class QueueOperations {
  constructor(
    private readonly repository: QueueRepository,
    private readonly queues: QueuesService,
    private readonly jobs: JobsService,
    @Inject(BROKER_CONFIG) private readonly config: Pick<BrokerConfig, 'sizes'>,
  ) {}

  readonly operations: Operations<
    | 'CreateQueue'
    | 'GetQueueUrl'
    | 'ListQueues'
    | 'DeleteQueue'
    | 'PurgeQueue'
    | 'GetQueueAttributes'
    | 'SetQueueAttributes'
    | 'TagQueue'
    | 'UntagQueue'
    | 'ListQueueTags'
    | 'AddPermission'
    | 'RemovePermission'
    | 'ListDeadLetterSourceQueues'
  > = {
    CreateQueue: async (input, context) => this.create(input, context),
    GetQueueUrl: async ({ QueueName }, { caller, address }) => {
      const name = required(QueueName, 'QueueName');
      caller.mustReach(name);
      await this.repository.getFresh(name);
      return { QueueUrl: urlOf(address, name) };
    },
    ListQueues: async ({ QueueNamePrefix = '', ...wanted }, { caller, address }) => {
      const queues = await this.repository.list();
      const names = queues
        .map(({ name }) => name)
        .filter((name) => name.startsWith(QueueNamePrefix) && caller.reaches(name));
      const { page, next } = pageOf(names, wanted);
      return { QueueUrls: page.map((name) => urlOf(address, name)), ...(next !== undefined && { NextToken: next }) };
    },
    DeleteQueue: async (input, context) => this.delete(queueOf(input, context), context),
    PurgeQueue: async (input, context) => {
      const { id } = await this.jobs.purge(queueOf(input, context));
      await this.jobs.get(context.caller, id, PURGE_SECONDS);
      return undefined;
    },
    GetQueueAttributes: async ({ AttributeNames = [], ...input }, context) => {
      const wanted = wantedNames(AttributeNames);
      const queue = await this.repository.getFresh(queueOf(input, context));
      const has = await this.attributes(queue, wanted, context);
      return Object.keys(has).length === 0 ? {} : { Attributes: has };
    },
    SetQueueAttributes: async ({ Attributes = {}, ...input }, context) => {
      const name = queueOf(input, context);
      refuseReadOnly(Attributes);
      await this.mustAllow(name, Attributes, context);
      await this.withLinks(name, async () =>
        this.repository.update(name, (queue) => changeOf(Attributes, queue, this.config.sizes)),
      );
      return undefined;
    },
    TagQueue: async ({ Tags, ...input }, context) => {
      const given = required(Tags, 'Tags');
      await this.changeTags(queueOf(input, context), (tags) => ({ ...tags, ...given }));
      return undefined;
    },
    UntagQueue: async ({ TagKeys, ...input }, context) => {
      const keys = new Set(required(TagKeys, 'TagKeys'));
      await this.changeTags(queueOf(input, context), (tags) =>
        Object.fromEntries(Object.entries(tags).filter(([key]) => !keys.has(key))),
      );
      return undefined;
    },
    ListQueueTags: async (input, context) => {
      const { tags } = settingsOf(await this.repository.getFresh(queueOf(input, context)));
      return tags === undefined ? {} : { Tags: tags };
    },
    AddPermission: async ({ Label, AWSAccountIds, Actions, ...input }, context) => {
      const label = required(Label, 'Label');
      const accounts = required(AWSAccountIds, 'AWSAccountIds');
      const actions = required(Actions, 'Actions');
      if (accounts.length === 0) throw missing('AWSAccountIds');
      if (actions.length === 0) throw missing('Actions');
      await this.changePolicy(queueOf(input, context), context, (statements, queue) => {
        if (statements.some(({ Sid }) => Sid === label)) throw invalidValue(label, 'Label', 'Already exists.');
        const resource = arnOf(context.address, queue.name);
        return [...statements, permission(label, accounts, actions, resource)];
      });
      return undefined;
    },
    RemovePermission: async ({ Label, ...input }, context) => {
      const label = required(Label, 'Label');
      await this.changePolicy(queueOf(input, context), context, (statements) => {
        const left = statements.filter(({ Sid }) => Sid !== label);
        if (left.length === statements.length)
          throw invalidValue(label, 'Label', "can't find label on existing policy.");
        return left;
      });
      return undefined;
    },
    ListDeadLetterSourceQueues: async ({ QueueUrl, ...wanted }, context) => {
      const { id } = await this.repository.getFresh(queueOf({ QueueUrl }, context));
      const sources = (await this.sourcesOf(id)).map(({ name }) => name).filter((name) => context.caller.reaches(name));
      const { page, next } = pageOf(sources, wanted);
      return {
        queueUrls: page.map((name) => urlOf(context.address, name)),
        ...(next !== undefined && { NextToken: next }),
      };
    },
  };

  /** Queues whose dead letters come to this one. */
  async sourcesOf(id: number): Promise<Queue[]> {
    return (await this.repository.list()).filter(({ deadLetterQueueId }) => deadLetterQueueId === id);
  }

  /**
   * Creates a queue. One that exists must have every given attribute: a client that only wants the
   * queue to exist must not change the queue of others.
   */
  private async create(
    { QueueName, Attributes = {}, tags, Tags = tags }: Input<'CreateQueue'>,
    context: SqsContext,
  ): Promise<{ QueueUrl: string }> {
    const name = required(QueueName, 'QueueName');
    context.caller.mustReach(name);
    const isFifo = Attributes['FifoQueue']?.toLowerCase() === 'true';
    const answer = { QueueUrl: urlOf(context.address, name) };
    const existing = await this.repository.getFresh(name).catch(noneIfMissing);
    if (existing === undefined) {
      checkName(name, isFifo);
      refuseReadOnly(Attributes);
      const change = changeOf(Attributes, undefined, this.config.sizes);
      await this.mustAllow(name, Attributes, context);
      if (Tags !== undefined) {
        checkTags(Tags);
        change.sqs = writeSettings({ ...settingsOf({ sqs: change.sqs ?? null }), tags: Tags });
      }
      try {
        await this.withLinks(name, async () => this.repository.create(name, change));
        return answer;
      } catch (error) {
        if (!(error instanceof RowmqError) || error.code !== 'queue-exists') throw error;
      }
    }
    refuseReadOnly(Attributes);
    const queue = existing ?? (await this.repository.getFresh(name));
    // A faulty value is a fault of its own.
    changeOf(Attributes, queue, this.config.sizes);
    const has = await this.attributes(queue, wantedNames(Object.keys(Attributes)), context);
    const [different] = differing(Attributes, has);
    if (different !== undefined)
      throw new SqsError(
        'QueueNameExists',
        `A queue already exists with the same name and a different value for attribute ${different}`,
      );
    return answer;
  }

  /** Another queue may still have it as its dead-letter queue, which then has none. */
  private async delete(name: string, { caller }: SqsContext): Promise<undefined> {
    const { id } = await this.repository.getFresh(name);
    for (const source of await this.sourcesOf(id)) {
      caller.mustReach(source.name);
      await this.repository.update(source.name, () => ({
        deadLetterQueue: null,
        maxReceives: null,
        deadLetterExpired: false,
      }));
    }
    await this.queues.delete(name, { force: true });
    return undefined;
  }

  private async attributes(
    queue: Queue,
    wanted: ReadonlySet<string>,
    { address }: SqsContext,
  ): Promise<Record<string, string>> {
    const figures = needsFigures(wanted) ? (await this.queues.get(queue.name)).stats : undefined;
    const deadLetterQueue =
      queue.deadLetterQueueId === null || !wanted.has('RedrivePolicy')
        ? null
        : ((await this.repository.names()).get(queue.deadLetterQueueId) ?? null);
    return attributesOf(queue, wanted, { address, sizes: this.config.sizes, figures, deadLetterQueue });
  }

  /**
   * Throws unless the queue may have the dead-letter queue that these attributes name: the key must
   * reach it, because messages go there, and its RedriveAllowPolicy must allow this source.
   */
  private async mustAllow(
    source: string,
    { RedrivePolicy = '' }: Readonly<Record<string, string>>,
    { caller }: SqsContext,
  ): Promise<void> {
    if (RedrivePolicy === '') return;
    const { deadLetterQueue } = readRedrivePolicy(RedrivePolicy);
    caller.mustReach(deadLetterQueue);
    const target = await this.repository.getFresh(deadLetterQueue).catch(noneIfMissing);
    const isAllowed = target === undefined || (allowedSourcesOf(target)?.has(source) ?? true);
    if (isAllowed) return;
    throw invalidValue(
      RedrivePolicy,
      'RedrivePolicy',
      `The RedriveAllowPolicy of ${deadLetterQueue} does not allow ${source} as a source.`,
    );
  }

  /** Names the faults of a dead-letter queue as SQS does. */
  private async withLinks<T>(name: string, change: () => Promise<T>): Promise<T> {
    try {
      return await change();
    } catch (error) {
      if (!(error instanceof RowmqError) || error.code !== 'invalid-request') throw error;
      throw new SqsError('InvalidParameterValue', `Queue ${name}: ${error.message}`, { cause: error });
    }
  }

  private async changeTags(
    name: string,
    tagsOf: (tags: Record<string, string>) => Record<string, string>,
  ): Promise<void> {
    await this.repository.update(name, (queue) => {
      const { tags = {}, ...settings } = settingsOf(queue);
      const changed = tagsOf(tags);
      checkTags(changed);
      return { sqs: writeSettings({ ...settings, ...(Object.keys(changed).length > 0 && { tags: changed }) }) };
    });
  }

  private async changePolicy(
    name: string,
    { address }: SqsContext,
    statementsOf: (statements: Statement[], queue: Queue) => Statement[],
  ): Promise<void> {
    await this.repository.update(name, (queue) => {
      const settings = settingsOf(queue);
      const { Policy, ...texts } = settings.texts ?? {};
      const policy = Policy === undefined ? undefined : readPolicy(Policy);
      const statements = statementsOf(policy?.Statement ?? [], queue);
      const document: PolicyDocument = {
        Version: '2008-10-17',
        Id: `${arnOf(address, name)}/SQSDefaultPolicy`,
        ...policy,
        Statement: statements,
      };
      const text = JSON.stringify(document);
      // A removal from a Policy that is too large makes it smaller.
      if (isTooLarge(text) && text.length > (Policy ?? '').length)
        throw new SqsError('OverLimit', `The Policy may have at most ${MOST_TEXT_BYTES} bytes.`);
      const changed = statements.length === 0 ? texts : { ...texts, Policy: text };
      return { sqs: writeSettings({ ...settings, texts: changed }) };
    });
  }
}

function checkTags(tags: Readonly<Record<string, string>>): void {
  const entries = Object.entries(tags);
  if (entries.length > MOST_TAGS)
    throw invalidParameter(`Too many tags added for queue: ${entries.length}, at most ${MOST_TAGS} are allowed.`);
  for (const [key, value] of entries)
    if (key.length === 0 || key.length > 128 || value.length > 256)
      throw invalidValue(key, 'Tags', 'A key has 1 to 128 characters, and a value at most 256.');
}

function noneIfMissing(error: unknown): undefined {
  if (error instanceof RowmqError && error.code === 'queue-not-found') return undefined;
  throw error;
}
