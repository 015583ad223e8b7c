import { Command } from 'commander';
import { LIMITS, type AuditEntry } from '@rowmq/contract';
import { examples } from '../examples.js';
import { pastTime, wholeNumber } from '../output/units.js';
import type { Open } from '../session.js';

interface AuditOptions {
  action?: string;
  key?: string;
  path?: string;
  refused?: true;
  from?: string;
  to?: string;
  limit: number;
}

export function auditCommand(open: Open): Command {
  const command = new Command('audit')
    .description('Show what administrators did, the latest first')
    .option('--action <action>', 'only this action, such as putQueue')
    .option('--key <name>', 'only with this key')
    .option('--path <path>', 'only paths that begin with this')
    .option('--refused', 'only refused ones')
    .option('--from <time>', 'from this time on, or how long ago', (text) => pastTime(text))
    .option('--to <time>', 'before this time, or how long ago', (text) => pastTime(text))
    .option('-n, --limit <n>', 'at most so many', wholeNumber(1, 100_000), 50)
    .action(async ({ refused, limit, ...conditions }: AuditOptions) => {
      const { client, out } = open();
      const entries: AuditEntry[] = [];
      for (let after: string | null | undefined; after !== null && entries.length < limit;) {
        const page = await client.listAudit({
          ...conditions,
          ...(refused === true && { refused: 'true' }),
          limit: Math.min(limit - entries.length, LIMITS.page),
          ...(after !== undefined && { after }),
        });
        if (out.json) for (const entry of page.entries) out.item(entry, () => '');
        entries.push(...page.entries);
        after = page.nextAfter;
      }
      if (out.json) return;
      out.line(
        entries.length === 0
          ? 'No entries.'
          : out.table(
              [
                { title: 'AT', of: ({ at }) => at },
                { title: 'KEY', of: ({ key }) => key },
                { title: 'FROM', of: ({ address }) => address },
                { title: 'ACTION', of: ({ action }) => action },
                {
                  title: 'STATUS',
                  of: ({ status, problem }) => (problem === null ? String(status) : `${status} ${problem}`),
                  paint: (text, { problem }) => (problem === null ? text : out.paint.yellow(text)),
                },
                { title: 'PATH', of: ({ path }) => path, wide: true },
                { title: 'CHANGES', of: changesText, wide: true },
              ],
              entries,
            ),
      );
    });
  examples(command, [
    ['rowmq audit', 'the last 50 actions'],
    ['rowmq audit --path /v1/admin/queues/orders --from 1d', 'what happened to a queue today'],
    ['rowmq audit --refused --json', 'refused actions, for scripts'],
  ]);
  return command;
}

function changesText({ changes }: AuditEntry): string {
  if (changes === null) return '';
  return Object.entries(changes)
    .map(
      ([field, { from, to }]) =>
        `${field}: ${from === undefined ? '' : `${JSON.stringify(from)} → `}${JSON.stringify(to)}`,
    )
    .join(', ');
}
