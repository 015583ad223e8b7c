/** The name of a connection that was given none. */
export const DEFAULT_CONNECTION = 'default';

/** The injection token of a registered queue. `@InjectQueue` uses it. */
export function getQueueToken(name: string, connection = DEFAULT_CONNECTION): string {
  return connection === DEFAULT_CONNECTION ? `rowmq:queue:${name}` : `rowmq:queue:${connection}:${name}`;
}

/** The injection token of a registered topic. `@InjectTopic` uses it. */
export function getTopicToken(name: string, connection = DEFAULT_CONNECTION): string {
  return connection === DEFAULT_CONNECTION ? `rowmq:topic:${name}` : `rowmq:topic:${connection}:${name}`;
}

/** The injection token of a named connection's client. `@InjectRowmq` uses it. */
export function getClientToken(connection: string): string {
  return `rowmq:client:${connection}`;
}
