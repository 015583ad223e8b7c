/*
 * A body, a header or a name comes from somebody else. On a terminal, its control characters could
 * move the cursor, change colours or the title, or hide text behind a change of direction.
 */

// oxlint-disable-next-line no-control-regex -- these are what it looks for
const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** The text with its control characters written out. Line ends and tabs stay. */
export function inert(text: string): string {
  return text.replaceAll(CONTROL, (character) => {
    const code = (character.codePointAt(0) as number).toString(16);
    return code.length <= 2 ? `\\x${code.padStart(2, '0')}` : `\\u${code.padStart(4, '0')}`;
  });
}

/** The same in one line, for a table. */
export function inertLine(text: string): string {
  return inert(text).replaceAll('\n', '\\n').replaceAll('\t', '\\t');
}

/** JSON with all control characters as escapes. A parser gets the same value. */
export function inertJson(value: unknown, indent?: number): string {
  // JSON itself escapes those below the space, so the indentation stays.
  return JSON.stringify(value, null, indent).replaceAll(CONTROL, (character) => {
    return `\\u${(character.codePointAt(0) as number).toString(16).padStart(4, '0')}`;
  });
}
