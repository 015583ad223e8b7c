import { appendFile, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { testServer } from '../../support/servers.js';
import { COLUMNS, type Outcome, outcomeRow } from './campaign.js';

const RESULTS = fileURLToPath(new URL('../../../.rowmq-test/results', import.meta.url));

/**
 * Prints what a fault did as a row of a Markdown table, and keeps it in .rowmq-test/results, under
 * the server's kind.
 */
export async function recordOutcome(outcome: Outcome): Promise<void> {
  const row = outcomeRow(outcome);
  console.log(row);
  await mkdir(RESULTS, { recursive: true });
  const file = join(RESULTS, `faults-${testServer().kind}.md`);
  const head = [COLUMNS, COLUMNS.map(() => '---')].map((cells) => `| ${cells.join(' | ')} |\n`).join('');
  // Only the first test of a run writes the head.
  await writeFile(file, head, { flag: 'wx' }).catch(() => undefined);
  await appendFile(file, `${row}\n`);
}
