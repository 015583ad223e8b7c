const NUMBER = new Intl.NumberFormat('en');
const SHORT = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });
const MINUTE = 60;
const HOUR = 3600;
const DAY = 86_400;

/** 12,345 */
export function number(value: number): string {
  return NUMBER.format(value);
}

/** 12.3K from ten thousand on. */
export function short(value: number): string {
  return value < 10_000 ? NUMBER.format(value) : SHORT.format(value);
}

/** 1.5 GB */
export function bytes(count: number): string {
  const units = ['B', 'KB', 'MB', 'GB', 'TB'];
  const power = count < 1 ? 0 : Math.min(Math.floor(Math.log10(count) / 3), units.length - 1);
  const value = count / 1000 ** power;
  return `${power === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[power]}`;
}

/** A rate, in words that fit a column: 0, 0.2/s, 12/s. */
export function rate(perSecond: number): string {
  if (perSecond === 0) return '0';
  if (perSecond < 0.05) return `${(perSecond * MINUTE).toFixed(1)}/min`;
  return `${perSecond < 10 ? perSecond.toFixed(1) : short(Math.round(perSecond))}/s`;
}

/** A length of time with its two largest units: 45 s, 14 min, 3 h 5 min, 2 d. */
export function duration(seconds: number): string {
  if (seconds < 1) return `${Math.round(seconds * 10) / 10} s`;
  const whole = Math.round(seconds);
  if (whole < MINUTE) return `${whole} s`;
  if (whole < HOUR) return parts(whole, MINUTE, 'min', 1, 's', 5 * MINUTE);
  if (whole < DAY) return parts(whole, HOUR, 'h', MINUTE, 'min', DAY);
  return parts(whole, DAY, 'd', HOUR, 'h', 7 * DAY);
}

/** The smaller unit is left out when nothing is left, or from a limit on. */
function parts(seconds: number, large: number, name: string, small: number, smallName: string, limit: number): string {
  const first = Math.floor(seconds / large);
  const rest = Math.floor((seconds % large) / small);
  return rest === 0 || seconds >= limit ? `${first} ${name}` : `${first} ${name} ${rest} ${smallName}`;
}

/** 12:03, or with the date if it is not today. */
export function clock(at: string | number): string {
  const time = new Date(at);
  const isToday = time.toDateString() === new Date().toDateString();
  const text = time.toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' });
  return isToday ? text : `${time.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' })} ${text}`;
}

/** 22 Nov 2026, 18:38:26.123, in the reader's time zone. */
export function instant(at: string | number): string {
  const time = new Date(at);
  const date = time.toLocaleDateString('en-GB', { day: 'numeric', month: 'short', year: 'numeric' });
  const ms = String(time.getMilliseconds()).padStart(3, '0');
  return `${date}, ${time.toLocaleTimeString('en-GB')}.${ms}`;
}

/** The distance of a time from now: 5 min ago, or in 5 min. */
export function ago(at: string | number, now = Date.now()): string {
  const seconds = (now - new Date(at).getTime()) / 1000;
  if (Math.abs(seconds) < 1) return 'now';
  return seconds > 0 ? `${duration(seconds)} ago` : `in ${duration(-seconds)}`;
}

export function plural(count: number, word: string): string {
  return `${number(count)} ${word}${count === 1 ? '' : 's'}`;
}
