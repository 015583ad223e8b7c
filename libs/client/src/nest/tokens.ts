/** What a registered queue is injected by; `@InjectQueue` does it. */
export function getQueueToken(name: string): string {
  return `rowmq:queue:${name}`;
}
