import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { freePort } from '../../../test/support/processes.js';
import type { PeerServer } from '../peer.js';
import { findProgram, listens, removeFolder, startServer, stopProcess, temporaryFolder } from './server-process.js';

/**
 * The plain scripts of Debian's package. The ones on the PATH are wrappers that change the user.
 */
const DEBIAN_SCRIPTS = '/usr/lib/rabbitmq/bin';
const DEBIAN_LIBRARY = '/usr/lib/rabbitmq/lib';

/** No setting is needed: https://www.rabbitmq.com/docs/quorum-queues */
export const RABBITMQ_DURABILITY =
  'quorum queue (fsyncs its write-ahead log by design), persistent messages, publisher confirms';

/**
 * A RabbitMQ node that shares nothing with another one on the machine: files, ports, cookie, name
 * server.
 */
export async function startRabbitMq(): Promise<PeerServer> {
  const program = await findProgram('rabbitmq-server', [DEBIAN_SCRIPTS], 'rabbitmq-server');
  const folder = await temporaryFolder('rabbitmq');
  const [port, distributionPort, epmdPort] = [await freePort(), await freePort(), await freePort()];
  // Erlang would start its name server by itself and leave it behind. The session ends this one.
  const epmd = await startServer({
    program: await findProgram('epmd', [], 'rabbitmq-server'),
    arguments: ['-address', '127.0.0.1', '-port', String(epmdPort)],
    folder,
    ready: () => listens(epmdPort),
  });
  try {
    const plugins = join(folder, 'enabled_plugins');
    await writeFile(plugins, '[].\n');
    await mkdir(join(folder, 'log'));
    const child = await startServer({
      program,
      arguments: [],
      folder,
      env: {
        ERL_EPMD_PORT: String(epmdPort),
        ERL_EPMD_ADDRESS: '127.0.0.1',
        RABBITMQ_NODENAME: `rowmq-bench-${port}@localhost`,
        RABBITMQ_NODE_IP_ADDRESS: '127.0.0.1',
        RABBITMQ_NODE_PORT: String(port),
        RABBITMQ_DIST_PORT: String(distributionPort),
        RABBITMQ_MNESIA_BASE: join(folder, 'mnesia'),
        RABBITMQ_LOG_BASE: join(folder, 'log'),
        RABBITMQ_PID_FILE: join(folder, 'pid'),
        RABBITMQ_ENABLED_PLUGINS_FILE: plugins,
        RABBITMQ_CONFIG_FILE: join(folder, 'none'),
        RABBITMQ_CONF_ENV_FILE: '/dev/null',
        // The script becomes the Erlang machine instead of waiting for it, so the signal to stop
        // reaches it.
        RUNNING_UNDER_SYSTEMD: 'true',
      },
      ready: () => listens(port),
    });
    return {
      version: `RabbitMQ ${await installedVersion()}`,
      address: `amqp://guest:guest@127.0.0.1:${port}`,
      pids: { rabbitmq: child.pid },
      stop: async () => {
        await stopProcess(child);
        await stopProcess(epmd);
        await removeFolder(folder);
      },
    };
  } catch (error) {
    await stopProcess(epmd);
    throw error;
  }
}

async function installedVersion(): Promise<string> {
  const names = await readdir(DEBIAN_LIBRARY).catch(() => []);
  return /rabbitmq_server-([\d.]+)/.exec(names.join(' '))?.[1] ?? '?';
}
