/** An error quotes at most this many characters of a request. */
const QUOTED = 100;

/** The beginning of a text that a client sent, for an error. */
export function clip(text: string, most = QUOTED): string {
  return text.length <= most ? text : `${text.slice(0, most).toWellFormed()}…`;
}
