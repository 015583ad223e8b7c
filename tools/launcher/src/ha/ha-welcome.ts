import type { EmbeddedGroup } from '@rowmq/mysql-server';

/** The text that the launcher prints when everything runs: addresses, and commands to try. */
export function haWelcome(brokers: readonly string[], group: EmbeddedGroup, needsKey: boolean): string {
  const key = needsKey ? ' --api-key "$ROWMQ_ADMIN_KEY"' : '';
  const servers = group.members.map(
    ({ number, port, server }) => `  Server ${number}    127.0.0.1:${port}, process ${server?.pid ?? '–'}`,
  );
  return `
RowMQ is running, highly available.
${brokers.map((address, index) => `  Broker ${index + 1}    ${address}/v1, ${address}/docs`).join('\n')}
${servers.join('\n')}

Try it: load in another terminal, and meanwhile kill servers, brokers or reapers; each is started again.
  npm run simulate -- --url ${brokers[0]}${key} --seconds 60 --rate 500 --lease-seconds 10 --drain-seconds 120
  kill -9 PROCESS                          the primary is named above, and whenever it changes
  kill -STOP PROCESS; sleep 30; kill -CONT PROCESS          as if it were cut off from the others

Ctrl-C stops it.
`;
}
