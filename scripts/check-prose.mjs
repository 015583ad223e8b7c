// check-prose.mjs [--summary] [--repo FOLDER] [PATHS…]: checks the language of comments, names of
// tests, and pages. Prints file:line:rule: sentence, and exits with 1 if it found anything.
// docs/development.md explains the rules.
//
// One set of rules serves source files and Markdown (prose/rules.mjs).
// TypeScript's parser tells comments from strings, templates and regular expressions.
// markdown-it parses pages: 7 packages, 3 MB, and it reports the lines of every block.
// textlint, the usual prose linter, has 182 packages and 56 MB. It reads no comments of TypeScript,
// so these rules would exist twice. marked is one package, but reports no lines. mdast has 45.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { checkPage } from './prose/page.mjs';
import { checkSource } from './prose/source.mjs';

const USAGE = 'usage: node scripts/check-prose.mjs [--summary] [--repo FOLDER] [PATHS…]';
const FOLDERS = 'apps libs migrations tools bench test examples scripts docs .github'.split(' ');
const SOURCE = /\.[cm]?[jt]sx?$/;
const PAGE = /\.md$/;

function main() {
  const { repo, summary, paths } = options();
  const findings = [];
  const files = filesOf(repo, paths);
  for (const path of files) {
    const source = readFileSync(join(repo, path), 'utf8');
    for (const finding of PAGE.test(path) ? checkPage(source) : checkSource(path, source)) {
      findings.push({ path, ...finding });
    }
  }
  if (summary) summarize(findings);
  else {
    findings.sort((one, other) => (one.path === other.path ? one.line - other.line : 0));
    for (const { path, line, rule, text } of findings) console.log(`${path}:${line}:${rule}: ${text}`);
  }
  if (findings.length === 0) return;
  console.error(
    `${findings.length} findings in ${new Set(findings.map(({ path }) => path)).size} of ${files.length} files`,
  );
  process.exitCode = 1;
}

function options() {
  try {
    const { values, positionals } = parseArgs({
      options: { repo: { type: 'string' }, summary: { type: 'boolean' }, help: { type: 'boolean' } },
      allowPositionals: true,
    });
    if (values.help) {
      console.log(USAGE);
      process.exit(0);
    }
    const repo = values.repo ?? fileURLToPath(new URL('..', import.meta.url));
    return { repo, summary: values.summary ?? false, paths: positionals };
  } catch (error) {
    console.error(`${error.message}\n${USAGE}`);
    return process.exit(2);
  }
}

/** New files count too, so that a commit cannot bring in what the next check finds. */
function filesOf(repo, paths) {
  const unknown = paths.find((path) => !existsSync(join(repo, path)));
  if (unknown !== undefined) {
    console.error(`${unknown} does not exist below ${repo}\n${USAGE}`);
    process.exit(2);
  }
  const where = paths.length > 0 ? paths : [...FOLDERS, ':(glob)*.md', ':(glob)*.ts'];
  const command = ['ls-files', '-z', '--cached', '--others', '--exclude-standard', '--', ...where];
  const listed = execFileSync('git', command, { cwd: repo, encoding: 'utf8', maxBuffer: 2 ** 26 }).split('\0');
  return [...new Set(listed)]
    .filter((path) => SOURCE.test(path) || PAGE.test(path))
    .filter((path) => statSync(join(repo, path), { throwIfNoEntry: false })?.isFile())
    .toSorted((one, other) => (one < other ? -1 : 1));
}

function summarize(findings) {
  const kinds = ['starts', 'words', 'columns', 'retired'];
  const counts = new Map();
  for (const { path, rule } of findings) {
    const folder = path.includes('/') ? path.split('/').slice(0, -1).slice(0, 4).join('/') : path;
    const row = counts.get(folder) ?? Object.fromEntries(kinds.map((kind) => [kind, 0]));
    row[kinds.find((kind) => rule.includes(kind))] += 1;
    counts.set(folder, row);
  }
  console.log(`${kinds.map((kind) => kind.padStart(8)).join('')}  folder`);
  for (const [folder, row] of [...counts].toSorted(([one], [other]) => (one < other ? -1 : 1))) {
    console.log(`${kinds.map((kind) => String(row[kind]).padStart(8)).join('')}  ${folder}`);
  }
}

main();
