// The rules for sentences and lines, for a text of which the line of every character is known.

const MOST_WORDS = 30;
const MOST_COLUMNS = 100;

/** A sentence that starts like this has a clause for its subject, unless it is a question. */
const HEADLESS = /^(?:what|who|whoever|those|of|where|how (?:many|much|long|often|far|soon))\b/i;
/** The same in a table, where "of the total" and "where it runs" are good labels. */
const HEADLESS_CELL = /^(?:[Ww]hat|[Ww]ho|[Ww]hoever|Those|Of|Where|[Hh]ow (?:many|much|long|often|far|soon))\b/;
/** An adverb that stands first turns subject and verb round. "So that" and "So a broker" pass. */
const SO_ADVERB = /^so (?:long|far|many|much|few|often|soon|little|seldom|(?!only)[a-z]+ly)\b/i;
const RETIRED = [
  [/(?<!\bin[- ])\bflights?\b/i, 'batch'],
  [/\b(?:take|takes|taking|taken|took) off\b/i, 'start, or send'],
  [/\blanes?\b/i, 'the name of the thing'],
  [/\b(?:give|gives|giving|given|gave) back\b/i, 'release, or nack'],
];

/** A full stop behind one of these ends no sentence. */
const ABBREVIATION = /(?:^|[\s("'])(?:e\.g|i\.e|cf|vs|approx|incl|resp)\.$/i;
/** Behind one of these, it ends a sentence if a capital follows. */
const ABBREVIATION_OR_END = /(?:^|[\s(])(?:etc|a\.m|p\.m)\.$/i;

/** Stands for a character of code: it is part of a word, and no rule reads it. */
export const CODE = '¤';

/**
 * @typedef {object} Prose a paragraph, a list item, a heading, a table cell or the name of a test
 * @property {string} text as it was written
 * @property {string} masked the same, character by character, with CODE for what is not prose
 * @property {(offset: number) => number} lineAt the line in the file
 * @property {boolean} [isCell] a cell of a table
 * @property {(from: number, to: number) => boolean} [isLabel] whether a sentence is a heading,
 *   which may name its section with a clause
 */

/** @param {Prose} prose */
export function* checkProse({ text, masked, lineAt, isCell = false, isLabel = () => false }) {
  const headless = isCell ? HEADLESS_CELL : HEADLESS;
  for (const { from, to } of sentences(masked)) {
    const sentence = masked.slice(from, to);
    const report = (rule, at = from) => ({ line: lineAt(at), rule, text: oneLine(text.slice(from, to)) });
    const start = sentence.search(/[^\s("'“‘*_[-]/);
    const words = sentence.slice(start);
    const isQuestion = /\?["')\]*_]*$/.test(sentence);
    if ((headless.test(words) || SO_ADVERB.test(words)) && !isQuestion && !isLabel(from, to)) {
      const [first] = /^\S+(?:\s+\S+)?/.exec(text.slice(from + start, to));
      yield report(`starts with "${oneLine(first)}"`);
    }
    const count = wordsIn(sentence);
    if (count > MOST_WORDS) yield report(`${count} words`);
    for (const [word, better] of RETIRED) {
      const found = word.exec(sentence);
      if (found) yield report(`"${oneLine(found[0])}" is retired, use ${better}`, from + found.index);
    }
  }
}

function* sentences(masked) {
  let from = 0;
  for (const end of masked.matchAll(/(?:[.!?…]+["'”’)\]*_]*(?=\s|$))|\s[·|]\s/g)) {
    const to = end.index + end[0].length;
    const before = masked.slice(from, end.index + 1);
    const isFollowedByCapital = /^\s+["'“(*_]*[\p{Lu}¤]/u.test(masked.slice(to));
    if (ABBREVIATION.test(before) || (ABBREVIATION_OR_END.test(before) && !isFollowedByCapital)) continue;
    if (end[0].startsWith('…') && !isFollowedByCapital) continue;
    yield* trimmed(masked, from, to);
    from = to;
  }
  yield* trimmed(masked, from, masked.length);
}

function* trimmed(masked, from, to) {
  const text = masked.slice(from, to);
  if (text.trim() === '') return;
  yield { from: from + text.length - text.trimStart().length, to: from + text.trimEnd().length };
}

const wordsIn = (sentence) => sentence.split(/\s+/).filter((token) => /[\p{L}\p{N}¤]/u.test(token)).length;
export const oneLine = (text) => text.replaceAll(/\s+/g, ' ').trim();
const hide = (text) => text.replaceAll(/\S/g, CODE);

/** Hides addresses, paths and identifiers: they are words, but not of the language. */
export function maskNames(text) {
  return text
    .replaceAll(/\b[a-z]+:\/\/[^\s)>]+/g, hide)
    .replaceAll(
      /[\w.@~-]*(?:\/[\w.@*:{}-]+){2,}|[\w.-]*\/[\w./-]*\.\w+|\b[\w-]+\.(?:[cm]?[jt]s|md|sql|json|ya?ml)\b/g,
      hide,
    )
    .replaceAll(/\b\w*_\w*\b/g, hide);
}

export const maskCode = (text) =>
  text.replaceAll(/(`+)(?!`)[\s\S]*?[^`]\1(?!`)/g, (code) => code.replaceAll(/[^\n]/g, CODE));

/** Columns as an editor counts them; an address cannot be wrapped. */
export const isTooWide = (line) => [...line].length > MOST_COLUMNS && !/\b[a-z]+:\/\/\S/.test(line);
