/** The injection token of a registered queue. `@InjectQueue` uses it. */
export function getQueueToken(name: string): string {
  return `rowmq:queue:${name}`;
}
