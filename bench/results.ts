import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Each benchmark's last report; bench/RESULTS.md is made from them. */
export const RESULTS_FOLDER = fileURLToPath(new URL('results', import.meta.url));
const RESULTS_FILE = fileURLToPath(new URL('RESULTS.md', import.meta.url));

interface Section {
  title: string;
  markdown: string;
}

/** Writes bench/RESULTS.md from bench/results. */
export async function main(): Promise<void> {
  await writeResultsFile();
}

/**
 * Renews the sections whose reports are in bench/results. Others stay as they are, because reports
 * are not under version control.
 */
export async function writeResultsFile(): Promise<void> {
  const [introduction = '', ...sections] = (await readFile(RESULTS_FILE, 'utf8')).split(/^(?=## )/m);
  const texts = new Map(sections.map((text) => [text.slice(3, text.indexOf('\n')), text.trim()]));
  for (const { title, markdown } of await readSections()) texts.set(title, `## ${title}\n\n${markdown.trim()}`);
  await writeFile(RESULTS_FILE, `${[introduction.trim(), ...texts.values()].join('\n\n')}\n`);
}

async function readSections(): Promise<Section[]> {
  const names = (await readdir(RESULTS_FOLDER)).filter((name) => name.endsWith('.json')).toSorted();
  const reports = await Promise.all(
    names.map(async (name) => JSON.parse(await readFile(join(RESULTS_FOLDER, name), 'utf8')) as Partial<Section>),
  );
  return reports.filter((report): report is Section => report.title !== undefined && report.markdown !== undefined);
}
