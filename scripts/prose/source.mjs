// Comments and the names of tests, in TypeScript and JavaScript.
import ts from 'typescript';
import { CODE, checkProse, isTooWide, maskCode, maskNames, oneLine } from './rules.mjs';

export function* checkSource(path, source) {
  const settings = { languageVersion: ts.ScriptTarget.Latest, jsDocParsingMode: ts.JSDocParsingMode.ParseNone };
  const file = ts.createSourceFile(path, source, settings, false);
  const lines = source.split(/\r?\n/);
  const lineOf = (position) => file.getLineAndCharacterOfPosition(position).line + 1;
  const { literals, names } = readTree(file);
  for (const comment of grouped([...comments(source, literals)], source, lineOf)) {
    yield* checkComment(comment, lines);
  }
  for (const { text, position } of names) {
    yield* checkProse({ text, masked: maskNames(maskCode(text)), lineAt: () => lineOf(position) });
  }
}

const TESTS = new Set(['describe', 'test', 'it', 'suite']);
const TEXTS = new Set([
  ts.SyntaxKind.StringLiteral,
  ts.SyntaxKind.NoSubstitutionTemplateLiteral,
  ts.SyntaxKind.TemplateHead,
  ts.SyntaxKind.TemplateMiddle,
  ts.SyntaxKind.TemplateTail,
  ts.SyntaxKind.RegularExpressionLiteral,
  ts.SyntaxKind.JsxText,
]);

/** The literals, in which nothing is a comment, and the names of tests. */
function readTree(file) {
  const literals = [];
  const names = [];
  const visit = (node) => {
    if (TEXTS.has(node.kind)) literals.push([node.getStart(file), node.end]);
    if (ts.isCallExpression(node) && node.arguments.length > 1 && TESTS.has(calledName(node.expression))) {
      const text = textOf(node.arguments[0]);
      if (text !== undefined) names.push({ text, position: node.arguments[0].getStart(file) });
    }
    ts.forEachChild(node, visit);
  };
  visit(file);
  literals.sort(([one], [other]) => one - other);
  return { literals, names };
}

/** `test` of `test.each(cases)('name', …)`. */
function calledName(node) {
  if (ts.isIdentifier(node)) return node.text;
  if (ts.isPropertyAccessExpression(node) || ts.isCallExpression(node)) return calledName(node.expression);
  if (ts.isTaggedTemplateExpression(node)) return calledName(node.tag);
  return undefined;
}

function textOf(node) {
  if (ts.isStringLiteralLike(node)) return node.text;
  if (ts.isTemplateExpression(node)) {
    return node.head.text + node.templateSpans.map(({ literal }) => CODE + literal.text).join('');
  }
  if (ts.isBinaryExpression(node)) {
    const [left, right] = [textOf(node.left), textOf(node.right)];
    return left === undefined || right === undefined ? undefined : left + right;
  }
  return undefined;
}

/** Between literals, two slashes, or a slash and an asterisk, always begin a comment. */
function* comments(source, literals) {
  const begin = /\/\/|\/\*/g;
  let next = 0;
  for (let found = begin.exec(source); found !== null; found = begin.exec(source)) {
    while (next < literals.length && literals[next][1] <= found.index) next += 1;
    if (next < literals.length && literals[next][0] <= found.index) {
      begin.lastIndex = literals[next][1];
      continue;
    }
    const isBlock = found[0] === '/*';
    const ending = source.indexOf(isBlock ? '*/' : '\n', begin.lastIndex);
    const end = ending === -1 ? source.length : isBlock ? ending + 2 : ending;
    yield { from: found.index, to: end, isBlock };
    begin.lastIndex = end;
  }
}

/** Line comments below each other are one comment: sentences run through them. */
function grouped(found, source, lineOf) {
  const groups = [];
  let last;
  for (const { from, to, isBlock } of found) {
    const line = lineOf(from);
    const start = source.lastIndexOf('\n', from - 1) + 1;
    const column = from - start;
    const isAlone = source.slice(start, from).trim() === '';
    const texts = source
      .slice(from, to)
      .split('\n')
      .map(isBlock ? withoutStar : (text) => text.slice(2));
    if (!isBlock && isAlone && last !== undefined && last.column === column && last.end === line - 1) {
      last.texts.push(...texts);
      last.end = line;
      continue;
    }
    const group = { line, texts, column, end: line };
    last = isBlock ? undefined : group;
    groups.push(group);
  }
  return groups;
}

const withoutStar = (text, index, { length }) => {
  const inner = index === length - 1 ? text.replace(/\s*\*\/$/, '') : text;
  return index === 0 ? inner.replace(/^\/\*+/, '') : inner.replace(/^\s*\*(?!\/)|^\s+(?!\s)/, ' ');
};

const DIRECTIVE =
  /^\s*(?:(?:ox|es)lint-|prettier-ignore|v8 ignore|c8 ignore|vite-|webpack|[@#]__|\/\s*<|@ts-(?:ignore|nocheck|check)|#(?:end)?region)/;
const TAG =
  /^\s*@(?:param|property|prop|returns?|throws|remarks|deprecated|default(?:Value)?|see|type|typedef|template|typeParam|ts-expect-error|vitest-environment|packageDocumentation|internal|module|callback|satisfies|import)\b/;
const LIST_ITEM = /^\s*(?:[-*•]|\d+[.)])\s+/;
/** The name behind @param is the code's. `[name]` and `{type}` are JSDoc's for JavaScript. */
const NAME =
  /^(\s*@(?:param|property|prop|typedef|template|typeParam|throws|returns?|type|satisfies|import)\b)(\s+\{(?:[^{}]|\{[^{}]*\})*\})?(\s+\[?[\w.$]+\]?(?:\s+-)?)?/;
const NAMED = /@(?:param|property|prop|typedef|template|typeParam)\b/;

function* checkComment({ line, texts }, lines) {
  if (/SPDX-License-Identifier|Licensed under the /.test(texts.join('\n'))) return;
  let paragraph = [];
  const paragraphs = [];
  const endParagraph = () => {
    if (paragraph.length > 0) paragraphs.push(paragraph);
    paragraph = [];
  };
  let isCode = false;
  let isExample = false;
  for (const [index, text] of texts.entries()) {
    if (/^\s*```/.test(text)) {
      isCode = !isCode;
      endParagraph();
      continue;
    }
    if (/^\s*@\w/.test(text)) isExample = /^\s*@example\b/.test(text);
    const isIndented = /^ {5,}\S/.test(text) && paragraph.length === 0;
    const isTable = /^\s*\|/.test(text);
    if (isCode || isExample || isIndented || isTable || DIRECTIVE.test(text)) {
      endParagraph();
      continue;
    }
    const whole = lines[line - 1 + index] ?? '';
    if (isTooWide(whole)) yield { line: line + index, rule: `${[...whole].length} columns`, text: oneLine(text) };
    if (text.trim() === '' || /^\s*[-=*#]{3,}\s*$/.test(text)) endParagraph();
    else {
      if (TAG.test(text) || LIST_ITEM.test(text)) endParagraph();
      paragraph.push({ text, line: line + index });
    }
  }
  endParagraph();
  for (const part of paragraphs) yield* checkProse(commentProse(part));
}

/** @returns {Prose} */
function commentProse(part) {
  const text = part.map((one) => one.text).join('\n');
  const blank = (found) => ' '.repeat(found.length);
  const masked = maskNames(
    maskCode(text)
      .replace(NAME, (all, tag, type = '', name = '') => {
        const isNamed = NAMED.test(tag) || (/@throws/.test(tag) && /^\s+[A-Z]\w*Error/.test(name));
        return blank(tag + type) + (isNamed ? blank(name) : name);
      })
      .replace(LIST_ITEM, blank)
      .replace(TAG, blank)
      .replaceAll(/\{@\w+[^}]*\}/g, (link) => link.replaceAll(/[^\n]/g, CODE)),
  );
  const lineAt = (offset) => part[text.slice(0, offset).split('\n').length - 1].line;
  return { text, masked, lineAt };
}
