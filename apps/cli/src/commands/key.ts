import { Command } from 'commander';
import { createKeyRequest, KEY_SCOPES, LIMITS, type KeyAnswer } from '@rowmq/contract';
import { examples } from '../examples.js';
import type { Column } from '../output/output.js';
import { ago, futureTime, wholeSeconds } from '../output/units.js';
import { checked } from '../schema-options.js';
import type { Open } from '../session.js';

export function keyCommand(open: Open): Command {
  return new Command('key')
    .description('Create, rotate and revoke API keys')
    .addCommand(list(open))
    .addCommand(show(open))
    .addCommand(create(open))
    .addCommand(rotate(open))
    .addCommand(revoke(open));
}

const COLUMNS: Column<KeyAnswer>[] = [
  { title: 'KEY', of: ({ name }) => name },
  { title: 'SCOPES', of: ({ scopes }) => scopes.join(', ') },
  { title: 'REACHES', of: ({ patterns }) => (patterns.length === 0 ? 'everything' : patterns.join(', ')), wide: true },
  { title: 'LAST USED', of: ({ lastUsedAt }) => ago(lastUsedAt) },
  { title: 'EXPIRES', of: ({ expiresAt }) => expiresAt ?? 'never' },
];

function list(open: Open): Command {
  const command = new Command('list')
    .alias('ls')
    .description('List keys, without their secrets')
    .action(async () => {
      const { client, out } = open();
      const keys: KeyAnswer[] = [];
      for (let after: string | null | undefined; after !== null;) {
        const page = await client.listKeys({ limit: LIMITS.page, ...(after !== undefined && { after }) });
        keys.push(...page.keys);
        after = page.nextAfter;
      }
      out.data(keys, (rows) => (rows.length === 0 ? 'No keys.' : out.table(COLUMNS, rows)));
    });
  examples(command, [['rowmq key list', 'who may do what']]);
  return command;
}

function show(open: Open): Command {
  const command = new Command('show')
    .description('Show a key, without its secret')
    .argument('<key>', 'its name')
    .action(async (name: string) => {
      const { client, out } = open();
      out.data(await client.getKey(name), (key) => out.table(COLUMNS, [key]));
    });
  examples(command, [['rowmq key show shop', 'what it may do']]);
  return command;
}

/** Collects the values of an option that is given several times. */
const collect = (value: string, before: string[] = []): string[] => [...before, value];

function create(open: Open): Command {
  const command = new Command('create')
    .description('Create a key and print its secret, which nobody can show again')
    .argument('<key>', 'its name')
    .requiredOption('--scope <scope>', `${KEY_SCOPES.join(', ')}; several times for several`, collect)
    .option('--pattern <pattern>', 'queues and topics that it reaches, such as orders.*; several times', collect)
    .option('--expires <time>', 'from then on it is refused: a time, or how far ahead', (text) => futureTime(text))
    .action(
      async (name: string, { scope, pattern, expires }: { scope: string[]; pattern?: string[]; expires?: string }) => {
        const { client, out } = open();
        const request = checked(createKeyRequest, { name, scopes: scope, patterns: pattern ?? [], expiresAt: expires });
        const key = await client.createKey(request);
        if (!out.json) out.note(`The secret of ${name}. Nobody can show it again:`);
        out.data(key, ({ secret }) => secret);
      },
    );
  examples(command, [
    ['rowmq key create shop --scope enqueue --scope dequeue --pattern "orders*"', 'for a service'],
    ['rowmq key create night-shift --scope admin --expires 30d', 'for a person, for a month'],
  ]);
  return command;
}

function rotate(open: Open): Command {
  const command = new Command('rotate')
    .description('Give a key a new secret. The old one stays valid for a day, or as long as you say')
    .argument('<key>', 'its name')
    .option('--old <duration>', 'the old secret stays valid so long; 0 ends it now', wholeSeconds)
    .action(async (name: string, { old }: { old?: number }) => {
      const { client, out } = open();
      const key = await client.rotateKey(name, old === undefined ? undefined : { oldSecretSeconds: old });
      if (!out.json) out.note(`The new secret of ${name}. The old one ends ${key.oldSecretUntil ?? 'now'}:`);
      out.data(key, ({ secret }) => secret);
    });
  examples(command, [['rowmq key rotate shop --old 1h', 'an hour for the change']]);
  return command;
}

function revoke(open: Open): Command {
  const command = new Command('revoke')
    .description('Revoke a key for good')
    .argument('<key>', 'its name')
    .option('-y, --yes', 'do not ask')
    .action(async (name: string, { yes }: { yes?: true }) => {
      const session = open();
      const { lastUsedAt } = await session.client.getKey(name);
      await session.confirm('key', name, `This revokes the key ${name}, last used: ${ago(lastUsedAt)}.`, yes);
      await session.client.revokeKey(name);
      session.out.done({ revoked: name }, `Key ${name} revoked. Every broker refuses it within three seconds.`);
    });
  examples(command, [['rowmq key revoke shop --yes', 'in a script']]);
  return command;
}
