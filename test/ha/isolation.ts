import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { chmod, mkdir, rm, writeFile } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { GroupMember, ServerProgram } from '@rowmq/mysql-server';
import { eventually } from '../support/wait.js';

const run = promisify(execFile);
const RELAY = fileURLToPath(new URL('relay.mjs', import.meta.url));
const isRoot = process.getuid?.() === 0;
/**
 * A user other than root may open a network namespace inside a user namespace, where it is root.
 */
const UNSHARE = ['--net', ...(isRoot ? [] : ['--map-root-user']), '--'];

/**
 * Gives each server of a group a Linux network namespace of its own. A relay is its only way to
 * the other servers. A test can cut this way while clients still reach the server.
 */
export class Isolation {
  readonly #servers: Server[] = [];
  readonly #sockets = new Set<Socket>();

  private constructor(
    private readonly folder: string,
    /** Runs a group's members isolated, and everything else as it is. */
    readonly program: ServerProgram,
  ) {}

  /** Undefined where the machine does not let us. */
  static async create(program: ServerProgram, groupFolder: string): Promise<Isolation | undefined> {
    try {
      await run('unshare', [...UNSHARE, 'ip', 'link', 'set', 'lo', 'up'], { timeout: 10_000 });
    } catch {
      return undefined;
    }
    const folder = join(groupFolder, 'net');
    await mkdir(folder, { recursive: true });
    const wrapper = join(folder, 'mysqld');
    return new Isolation(folder, { ...program, program: wrapper }).#write(wrapper, program.program);
  }

  /** Opens the ways from here to the members; call it before they start. */
  async open(members: readonly GroupMember[], groupPorts: readonly number[]): Promise<void> {
    const lists = [members.map(({ port }) => port).join(','), groupPorts.join(',')];
    await writeFile(join(this.folder, 'ports'), lists.join(' '));
    for (const [index, { port }] of members.entries()) {
      const server = createServer((socket) => {
        const inside = connect(join(this.folder, `outside-${index}`));
        for (const [one, other] of [
          [socket, inside],
          [inside, socket],
        ] as const) {
          this.#sockets.add(one);
          one.pipe(other);
          one.on('error', () => undefined);
          one.on('close', () => {
            this.#sockets.delete(one);
            other.destroy();
          });
        }
      }).listen(port, '127.0.0.1');
      await once(server, 'listening');
      this.#servers.push(server);
    }
  }

  /**
   * Cuts a member off. Once this has returned nothing gets through between it and the others; all
   * of them have to run.
   */
  async cut({ number }: GroupMember): Promise<void> {
    const held = this.#servers.map((_, index) => join(this.folder, `held-${number - 1}-${index}`));
    // A relay of an earlier cut.
    await Promise.all(held.map((file) => rm(file, { force: true })));
    await writeFile(this.#cutFile(number), '');
    await eventually('every relay holds what it had', () => held.every((file) => existsSync(file)), 60_000);
  }

  async mend({ number }: GroupMember): Promise<void> {
    await rm(this.#cutFile(number), { force: true });
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    for (const server of this.#servers) server.close();
  }

  #cutFile(number: number): string {
    return join(this.folder, `cut-${number - 1}`);
  }

  async #write(wrapper: string, program: string): Promise<this> {
    const script = `#!/usr/bin/env bash
# Runs a member of a group in a network namespace of its own, beside its relay; the process is the server's.
group= number=
for argument; do
  case $argument in
    --group-replication-local-address=*) group=yes;;
    --server-id=*) number=\${argument#*=};;
  esac
done
[ "$group" ] || exec '${program}' "$@"
read -r sql groups < '${this.folder}/ports' || true
export RELAY_OWN=$((number - 1)) RELAY_SQL=$sql RELAY_GROUP=$groups
exec unshare ${UNSHARE.join(' ')} bash -c '
  ip link set lo up
  ${process.execPath} ${RELAY} ${this.folder} "$RELAY_OWN" "$RELAY_SQL" "$RELAY_GROUP" &
  exec ${program} "$@"${isRoot ? '' : ' --user=root'}
' mysqld "$@"
`;
    await writeFile(wrapper, script);
    await chmod(wrapper, 0o755);
    return this;
  }
}
