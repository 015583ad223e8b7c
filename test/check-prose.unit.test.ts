import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const run = promisify(execFile);
const script = fileURLToPath(new URL('../scripts/check-prose.mjs', import.meta.url));

const words = (count: number): string => Array.from({ length: count }, (_, index) => `word${index}`).join(' ');
/** A sentence of short words, as wide as that in a line of its own. */
const columns = (count: number): string => `${'a claim '.repeat(8)}${'x'.repeat(count)}`.slice(0, count - 1) + '.';

/** Texts, and what the check says of each: the line, and how the finding begins. */
interface Case {
  name: string;
  /** With the line ends as they are written here. */
  text: string;
  findings: string[];
}

const SOURCES: Case[] = [
  // Sentence starts.
  { name: 'a line comment', text: '// What was read is kept.', findings: ['1:starts with "What was"'] },
  { name: 'a doc comment', text: '/** Who waits is woken. */', findings: ['1:starts with "Who waits"'] },
  { name: 'Whoever', text: '// Whoever asks gets it.', findings: ['1:starts with "Whoever asks"'] },
  { name: 'Those', text: '// Those that wait are woken.', findings: ['1:starts with "Those that"'] },
  { name: 'Of', text: '// Of two claims one waits.', findings: ['1:starts with "Of two"'] },
  { name: 'Where', text: '// Where it fails, it is tried again.', findings: ['1:starts with "Where it"'] },
  { name: 'How many', text: '// How many may wait.', findings: ['1:starts with "How many"'] },
  { name: 'How long', text: '/** How long a lease lasts. */', findings: ['1:starts with "How long"'] },
  { name: 'So long', text: '// So long does a lease last.', findings: ['1:starts with "So long"'] },
  { name: 'So quickly', text: '// So quickly it ends.', findings: ['1:starts with "So quickly"'] },
  {
    name: 'a second sentence',
    text: '// The claim ends.\n// It commits. What it leased\n// is answered.',
    findings: ['2:starts with "What it"'],
  },
  {
    name: 'a sentence behind code and a bracket',
    text: '// It calls `take()`. (What follows is kept.)',
    findings: ['1:starts with "What follows"'],
  },
  { name: 'a tag', text: '/**\n * @returns what was found\n */', findings: ['2:starts with "what was"'] },
  { name: 'a parameter', text: '/**\n * @param id who asks\n */', findings: ['2:starts with "who asks"'] },
  {
    name: 'a list in a comment',
    text: '/*\n * Two cases:\n * - none is left;\n * - those that wait.\n */',
    findings: ['4:starts with "those that"'],
  },
  { name: 'a trailing comment', text: 'f(); // What is left.', findings: ['1:starts with "What is"'] },
  {
    name: 'the name of a test',
    text: "test('what was read is kept', () => f());",
    findings: ['1:starts with "what was"'],
  },
  {
    name: 'the name of a test for each case',
    text: "describe.each([1])('of %i claims one waits', () => f());",
    findings: ['1:starts with "of %i"'],
  },
  {
    name: 'a name with a value in it',
    text: 'it(`so far ${f()} waits`, () => f());',
    findings: ['1:starts with "so far"'],
  },
  { name: 'a question', text: '// What happens when it fails? Where is it?', findings: [] },
  {
    name: 'good starts',
    text: '// So that it ends. So a claim waits. So only one waits. How a claim waits.',
    findings: [],
  },
  { name: 'a word that only begins so', text: '// Whatever happens, offers end. Whole claims wait.', findings: [] },
  // Length.
  { name: 'a long sentence', text: `// ${words(12)}\n// ${words(12)}\n// ${words(7)}.`, findings: ['1:31 words'] },
  { name: 'thirty in three lines', text: `// ${words(12)}\n// ${words(12)}\n// ${words(6)}.`, findings: [] },
  { name: 'two sentences', text: `// ${words(12)}\n// ${words(8)}. ${words(4)}\n// ${words(12)}.`, findings: [] },
  {
    name: 'abbreviations',
    text: `// ${words(12)}, e.g. ${words(3)}\n// ${words(12)}\n// ${words(4)}.`,
    findings: ['1:32 words'],
  },
  {
    name: 'code counts as one word',
    text: `// ${words(12)}\n// ${words(12)}\n// ${words(5)} \`a b c d e\`.`,
    findings: [],
  },
  {
    name: 'a long name of a test',
    text: `test('${words(31)}', () => f());`,
    findings: ['1:31 words'],
  },
  // Columns.
  { name: 'columns', text: `// ${columns(98)}`, findings: ['1:101 columns'] },
  { name: 'just enough columns', text: `// ${columns(97)}`, findings: [] },
  { name: 'columns behind code', text: `const x = 1; // ${columns(90)}`, findings: ['1:106 columns'] },
  { name: 'an address', text: `// See https://example.com/${'x'.repeat(100)}.`, findings: [] },
  { name: 'a directive', text: `// oxlint-disable-next-line ${'no-console, '.repeat(10)}`, findings: [] },
  // Vocabulary.
  { name: 'flight', text: '// A flight commits.', findings: ['1:"flight" is retired'] },
  { name: 'flights', text: "test('two flights commit', () => f());", findings: ['1:"flights" is retired'] },
  { name: 'take off', text: '// The batch takes off.', findings: ['1:"takes off" is retired'] },
  { name: 'lanes', text: '// One of two lanes.', findings: ['1:"lanes" is retired'] },
  { name: 'give back', text: '// It\n// gives back the lease.', findings: ['2:"gives back" is retired'] },
  { name: 'in flight', text: '// A batch in flight, an in-flight batch.', findings: [] },
  {
    name: 'identifiers',
    text: '// Of `flights`.'.replace('Of', 'See') + ' maxFlights, rowmq_flights, a/b/flights.ts',
    findings: [],
  },
  // No prose.
  { name: 'strings', text: "f('// What is this', `/* Who ${'// Of'} is */`, /[/][/] Who is/);", findings: [] },
  { name: 'strings that are no names', text: "f('what a flight is', () => f());", findings: [] },
  { name: 'a fence in a comment', text: '/**\n * ```ts\n * What(is, not) // prose\n * ```\n */', findings: [] },
  { name: 'an indented example', text: '/*\n * Like this:\n *\n *     Of(flight)\n */', findings: [] },
  { name: 'an example', text: '/**\n * Takes one.\n * @example\n * Of(flight)\n */', findings: [] },
  { name: 'a link', text: '/** See {@link Flight the flight}. */', findings: [] },
  { name: 'types', text: '/** @param {what} of the queue\n * @returns {who} a name */', findings: [] },
  { name: 'a table in a comment', text: `/*\n * | what | ${'x'.repeat(100)} |\n */`, findings: [] },
  { name: 'a licence', text: '/*\n * Licensed under the Apache License.\n * What of it.\n */', findings: [] },
];

const PAGES: Case[] = [
  { name: 'a paragraph', text: 'What was read is kept.', findings: ['1:starts with "What was"'] },
  {
    name: 'a second paragraph',
    text: 'It ends.\n\nIt ends. Those\nthat wait.',
    findings: ['3:starts with "Those that"'],
  },
  { name: 'a list', text: '- it ends\n- Where it\n  fails.\n', findings: ['2:starts with "Where it"'] },
  { name: 'a quotation', text: '> It ends.\n> Of two, one.\n', findings: ['2:starts with "Of two,"'] },
  { name: 'emphasis', text: 'It ends. *So far* it is good.', findings: ['1:starts with "So far"'] },
  { name: 'a cell', text: '| name |\n|---|\n| ends |\n| what it is |\n', findings: ['4:starts with "what it"'] },
  { name: 'a lower-case label', text: '| what it is |\n|---|\n| of the total |\n| where it runs |\n', findings: [] },
  { name: 'a heading', text: '## What was measured\n', findings: [] },
  { name: 'a link to a heading', text: '[What to do](#what-to-do) ·\n[How many](#how-many)\n', findings: [] },
  { name: 'a bold lead-in', text: '**What remains.** The claim ends.\n', findings: [] },
  { name: 'a question', text: 'What happens when it fails?', findings: [] },
  { name: 'a long sentence', text: `${words(12)}\n${words(12)}\n${words(7)}.`, findings: ['1:31 words'] },
  { name: 'a long cell', text: `| name |\n|---|\n| ${words(31)} |\n`, findings: ['3:31 words'] },
  { name: 'a long heading', text: `# ${words(31)}\n`, findings: ['1:31 words'] },
  { name: 'columns', text: `It ends.\n${columns(101)}\n`, findings: ['2:101 columns'] },
  { name: 'just enough columns', text: columns(100), findings: [] },
  { name: 'columns of a list', text: `- it ends\n- ${columns(99)}\n`, findings: ['2:101 columns'] },
  { name: 'the target of a link', text: `See [a page](${'x'.repeat(100)}.md).`, findings: [] },
  { name: 'an address', text: `See https://example.com/${'x'.repeat(100)}.`, findings: [] },
  { name: 'flight', text: 'It ends.\nA flight commits.', findings: ['2:"flight" is retired'] },
  { name: 'flights in a heading', text: '# Flights\n', findings: ['1:"Flights" is retired'] },
  { name: 'given back', text: 'It was given back.', findings: ['1:"given back" is retired'] },
  { name: 'in flight', text: 'A batch in flight.', findings: [] },
  { name: 'code', text: 'It calls `What a\nflight`.\nA lane.', findings: ['3:"lane" is retired'] },
  { name: 'a block of code', text: `\`\`\`sh\nWhat flight ${'x'.repeat(100)}\n\`\`\`\n`, findings: [] },
  { name: 'a comment in a page', text: '<!-- What a flight. -->\n', findings: [] },
];

/** Every case as a file of its own, which is new to git. */
const files = new Map<string, Case>();
for (const [index, one] of SOURCES.entries()) files.set(`libs/case-${index}.ts`, one);
for (const [index, one] of PAGES.entries()) files.set(`docs/case-${index}.md`, one);

let repo: string;
const found = new Map<string, string[]>();

async function check(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  try {
    return { code: 0, ...(await run(process.execPath, [script, ...args])) };
  } catch (error) {
    return error as { code: number; stdout: string; stderr: string };
  }
}

beforeAll(async () => {
  repo = await mkdtemp(join(tmpdir(), 'check-prose-'));
  await run('git', ['init', '--quiet', repo]);
  for (const [path, { text }] of files) {
    await mkdir(dirname(join(repo, path)), { recursive: true });
    await writeFile(join(repo, path), text);
  }
  await writeFile(join(repo, '.gitignore'), 'libs/ignored.ts\n');
  await writeFile(join(repo, 'libs/ignored.ts'), '// What is ignored.\n');
  const { code, stdout } = await check('--repo', repo);
  expect(code).toBe(1);
  for (const line of stdout.trim().split('\n')) {
    const [, path, finding] = /^([^:]+):(.*)$/.exec(line) as unknown as [string, string, string];
    found.set(path, [...(found.get(path) ?? []), finding]);
  }
});
afterAll(() => rm(repo, { recursive: true, force: true }));

describe('the check for prose', () => {
  test.each([...files].map(([path, one]) => ({ path, ...one })))('$path: $name', ({ path, findings }) => {
    const told = found.get(path) ?? [];
    expect(told, told.join('\n')).toHaveLength(findings.length);
    for (const [index, finding] of findings.entries()) expect(told[index]).toContain(finding);
  });

  test('a file that git ignores is not read', () => {
    expect([...found.keys()].filter((path) => !files.has(path))).toEqual([]);
  });

  test('a finding shows its sentence', () => {
    expect(found.get('libs/case-0.ts')).toEqual(['1:starts with "What was": What was read is kept.']);
  });

  test('clean paths end with 0, and print nothing', async () => {
    const clean = [...files].filter(([, { findings }]) => findings.length === 0).map(([path]) => path);
    expect(await check('--repo', repo, ...clean)).toEqual({ code: 0, stdout: '', stderr: '' });
  });

  test('a summary counts findings by folder and kind', async () => {
    const { code, stdout } = await check('--summary', '--repo', repo);
    expect(code).toBe(1);
    const [head, ...rows] = stdout
      .trim()
      .split('\n')
      .map((row) => row.trim().split(/\s+/));
    expect(head).toEqual(['starts', 'words', 'columns', 'retired', 'folder']);
    expect(rows.map((row) => row.at(-1))).toEqual(['docs', 'libs']);
    const sum = rows.flatMap((row) => row.slice(0, -1)).reduce((total, count) => total + Number(count), 0);
    expect(sum).toBe([...found.values()].flat().length);
  });

  test('a path that does not exist is an error, not a clean result', async () => {
    const { code, stderr } = await check('--repo', repo, 'libs/nothing.ts');
    expect(code).toBe(2);
    expect(stderr).toContain('libs/nothing.ts does not exist');
  });
});
