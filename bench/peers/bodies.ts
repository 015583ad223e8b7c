/** Every body begins with its message's number. */
const NUMBER_WIDTH = 12;

/** A body of so many bytes. */
export function bodyOf(number: number, bodyBytes: number): string {
  return number.toString().padStart(NUMBER_WIDTH, '0').padEnd(bodyBytes, 'x');
}

/** The number of a message. Throws if this is not the body that it was sent with. */
export function numberOf(body: string, bodyBytes: number): number {
  const number = Number(body.slice(0, NUMBER_WIDTH));
  if (!Number.isInteger(number) || body.length !== bodyBytes) {
    throw new Error(`an unknown message came: ${body.slice(0, 40)}`);
  }
  return number;
}
