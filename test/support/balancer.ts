import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

/**
 * A load balancer in front of several brokers, or of database servers: each new connection goes to
 * the next one.
 */
export interface Balancer {
  /** `http://127.0.0.1:port` */
  url: string;
  /** New connections go to this broker too. */
  add(brokerUrl: string): void;
  /** New connections no longer go to this broker. Its open ones stay. */
  remove(brokerUrl: string): void;
  close(): Promise<void>;
}

export async function startBalancer(): Promise<Balancer> {
  const brokers: string[] = [];
  const sockets = new Set<Socket>();
  let turn = 0;
  const server = createServer((client) => {
    turn += 1;
    const broker = brokers[turn % brokers.length];
    if (broker === undefined) {
      client.destroy();
      return;
    }
    const { hostname, port } = new URL(broker);
    const upstream = connect(Number(port), hostname);
    for (const [one, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(one);
      one.pipe(other);
      one.on('error', () => other.destroy());
      one.on('close', () => {
        sockets.delete(one);
        other.destroy();
      });
    }
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    add: (brokerUrl) => void brokers.push(brokerUrl),
    remove: (brokerUrl) => void brokers.splice(brokers.indexOf(brokerUrl), 1),
    close: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}
