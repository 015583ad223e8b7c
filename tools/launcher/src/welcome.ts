import type { LauncherConfig } from './launcher.config.js';

const DEADLINE_MS = 10_000;
const QUEUE = 'demo';

/** Address to reach the broker at from this machine. */
export function brokerAddress({ host, port }: Pick<LauncherConfig, 'host' | 'port'>): string {
  const reachable = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host;
  return `http://${reachable.includes(':') ? `[${reachable}]` : reachable}:${port}`;
}

/**
 * Creates the queue that the printed commands use, or leaves it as it is. Throws with the broker's
 * answer when it does neither.
 */
export async function createDemoQueue(config: LauncherConfig): Promise<void> {
  const url = `${brokerAddress(config)}/v1/admin/queues/${QUEUE}`;
  const headers = {
    'content-type': 'application/json',
    ...(config.adminKey === undefined ? {} : { authorization: `Bearer ${config.adminKey}` }),
  };
  const answer = await fetch(url, { method: 'PUT', headers, body: '{}', signal: AbortSignal.timeout(DEADLINE_MS) });
  // Without ROWMQ_ADMIN_KEY, the launcher has no key.
  if (answer.status === 401 && config.adminKey === undefined) return;
  if (!answer.ok) throw new Error(`Could not create the queue ${QUEUE}: ${answer.status} ${await answer.text()}`);
}

/**
 * The text that the launcher prints when everything runs: the address, and three commands to try.
 */
export function welcome(config: LauncherConfig, database: string): string {
  const address = brokerAddress(config);
  const messages = `${address}/v1/queues/${QUEUE}/messages`;
  // The key itself stays out of terminals and logs.
  const key = config.adminKey === undefined ? '' : ` -H "authorization: Bearer $ROWMQ_ADMIN_KEY"`;
  const post = `curl -sS${key} -H 'content-type: application/json'`;
  const needsKey = key === '' ? '' : ' (in a shell that has ROWMQ_ADMIN_KEY set)';
  return `
RowMQ is running.
  REST        ${address}/v1
  Dashboard   ${address}/dashboard
  Swagger UI  ${address}/docs
  Database    ${database}

Try it${needsKey}: enqueue, dequeue, ack.
  ${post} ${messages} -d '{"messages":[{"body":"hello"}]}'
  answer=$(${post} ${messages}/dequeue -d '{}') && printf '%s\\n' "$answer"
  ${post} ${messages}/ack -d '{"receipts":["'$(printf '%s' "$answer" | sed 's/.*"receipt":"\\([^"]*\\)".*/\\1/')'"]}'

Ctrl-C stops it.
`;
}
