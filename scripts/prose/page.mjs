// Paragraphs, lists, headings and tables of Markdown.
import MarkdownIt from 'markdown-it';
import { CODE, checkProse, isTooWide, maskNames, oneLine } from './rules.mjs';

const markdown = new MarkdownIt({ html: true });

export function* checkPage(source) {
  const lines = source.split(/\r?\n/);
  let line = 0;
  let block = '';
  for (const token of markdown.parse(source, {})) {
    if (token.map) [line] = token.map;
    if (token.type.endsWith('_open')) block = token.type;
    if (token.type !== 'inline') continue;
    const first = line;
    if (block === 'paragraph_open') {
      for (let index = token.map[0]; index < token.map[1]; index += 1) {
        const text = lines[index] ?? '';
        // The target of a link cannot be wrapped either.
        if (isTooWide(text.replaceAll(/\]\([^)\s]*\)/g, ']()'))) {
          yield { line: index + 1, rule: `${[...text].length} columns`, text: oneLine(text) };
        }
      }
    }
    const { text, masked, names } = inlineText(token);
    const isHeading = block === 'heading_open' || block === 'th_open';
    yield* checkProse({
      text,
      masked,
      isCell: block === 'td_open',
      isLabel: (from, to) => isHeading || names.some((name) => name.from <= from && to <= name.to + ' ·'.length),
      lineAt: (at) => first + text.slice(0, at).split('\n').length,
    });
  }
}

/**
 * The text that a reader sees, the same with its code hidden, and where links and bold text are.
 * A whole sentence that is a link or bold names something, like a heading.
 */
function inlineText(token) {
  let text = '';
  let masked = '';
  let cursor = 0;
  const names = [];
  const open = [];
  for (const child of token.children) {
    if (child.type === 'link_open' || child.type === 'strong_open') open.push(text.length);
    if (child.type === 'link_close' || child.type === 'strong_close') names.push({ from: open.pop(), to: text.length });
    if (child.type === 'code_inline') {
      // The parser turns line ends in code into spaces. The source has them, so lines stay right.
      const from = token.content.indexOf(child.markup, cursor) + child.markup.length;
      cursor = token.content.indexOf(child.markup, from);
      const code = token.content.slice(from, cursor);
      cursor += child.markup.length;
      text += code;
      masked += code.replaceAll(/[^\n]/g, CODE);
    } else if (child.type === 'softbreak' || child.type === 'hardbreak') {
      text += '\n';
      masked += '\n';
    } else if (child.type === 'text' || child.type === 'text_special') {
      text += child.content;
      masked += maskNames(child.content);
    } else if (child.type === 'html_inline' && /^<br/i.test(child.content)) {
      text += ' · ';
      masked += ' · ';
    }
  }
  return { text, masked, names };
}
